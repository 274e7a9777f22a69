"""Compressed sets from other projects: tensors, HDF5, class folders, Parquet.

    images_best.pt + labels_best.pt    [N, C, H, W] and [N] or [N, classes] (MTT, DATM and similar)
    set.pt                             a dict of both, or {"data": [[images, labels], ...]} (DC, DM)
    set.h5                             the datasets `data` and `label` (arXiv 2406.10485)
    DIR/CLASS/*.png                    one folder per class (SRe2L, CDA, RDED, ...)
    DIR/*.parquet                      one row per image: hubs, and raydc's own sets
    hub:OWNER/NAME                     a dataset on the Hugging Face hub, in one of the last two forms

Files are read without executing anything: torch.load with weights_only, images by Pillow.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from raydc.data.hdf5_file import read_hdf5
from raydc.data.hub import located
from raydc.data.image_folder import SUFFIXES, FolderSplit
from raydc.data.image_set import CompressedSet
from raydc.data.parquet import (
    ParquetSplit,
    class_names_of,
    image_and_label,
    read_column,
    read_schema,
    split_of,
)
from raydc.data.source import EncodedSplit, decode_images
from raydc.data.torch_file import flat, read_tensors
from raydc.errors import ArtifactError, InputError, one_of
from raydc.files.full_disk import add_to_hash

PAIRS = (("images", "labels"), ("data", "label"), ("image_syn", "label_syn"))
"""Names of images and labels in files."""


@dataclass(frozen=True)
class ImportedSet:
    """Images and labels as stored in a file."""

    images: NDArray[Any]
    """[N, C, H, W]; uint8 pixels, or float32."""
    labels: NDArray[np.int64]
    """[N], class numbers; the argmax of soft labels."""
    soft_labels: NDArray[np.float32] | None = None
    """[N, classes], if the file holds more than class numbers."""
    space: str | None = None
    """Space of float images (raydc.data.image_set.SPACES), if the file contains it."""
    grid: tuple[int, int] = (1, 1)
    """Rows and columns of tiles in an image."""


def digest_of(key: str, path: str) -> str:
    """SHA-256 of the file (with its labels) or folder given by `key`; raises `InputError` if unreadable."""
    root = located(key, path)
    return digest_of_files(key, path, root, _below(root) if root.is_dir() else _files_of(root))


def _below(root: Path) -> list[Path]:
    """All files below a folder, including those behind links."""
    found: list[Path] = []
    seen: set[Path] = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        if (real := Path(folder).resolve()) in seen:
            folders.clear()  # a link to a folder that was visited already
            continue
        seen.add(real)
        found += (Path(folder) / name for name in names)
    return sorted(found)


def digest_of_files(key: str, path: str, root: Path, files: Sequence[Path]) -> str:
    """SHA-256 of the relative names and the contents of `files`; raises `InputError` if one is unreadable."""
    hasher = hashlib.sha256()
    try:
        for file in files:
            name = file.relative_to(root).as_posix() if root.is_dir() else ""
            hasher.update(f"{name} {file.stat().st_size}\n".encode())
            add_to_hash(hasher, file)
    except OSError as error:
        raise InputError(f"{key} is {path!r}, which cannot be read: {error.strerror}") from None
    return hasher.hexdigest()


def read_set(path: str, class_names: Sequence[str]) -> ImportedSet:
    """The compressed set at `path`; raises `InputError` if it is not one or does not fit these classes."""
    root = located("images.path", path)
    if not root.exists():
        raise InputError(f"images.path is {path!r}, but there is no such file or folder")
    if root.is_dir():
        tables = _of_train(sorted(root.rglob("*.parquet")))
        found = _parquet(path, root, tables, class_names) if tables else _folders(path, root, class_names)
    else:
        found = _pair(path, *_arrays(path, root), len(class_names))
    if not len(found.labels):
        raise InputError(f"images.path is {path!r}, which contains no images")
    low, high = int(found.labels.min()), int(found.labels.max())
    if low < 0 or high >= len(class_names):
        raise InputError(
            f"images.path is {path!r}, which has the class {low if low < 0 else high}, but the data's "
            f"classes are numbered from 0 to {len(class_names) - 1}"
        )
    return found


def _files_of(file: Path) -> list[Path]:
    """A file and, if its labels are in a separate file, the file of labels."""
    beside = _labels_beside(file)
    return [file] if beside is None else [file, beside]


def _labels_beside(file: Path) -> Path | None:
    name = re.sub("images", "labels", file.name, count=1)
    return file.with_name(name) if name != file.name and file.with_name(name).is_file() else None


def _arrays(path: str, file: Path) -> tuple[Any, Any]:
    """Images and labels of one file, under any of the known names."""
    suffix = file.suffix.lower()
    if suffix in (".pt", ".pth"):
        content = _load(path, file)
    elif suffix in (".h5", ".hdf5"):
        content = _hdf5(path, file)
    else:
        raise InputError(
            f"images.path is {path!r}, but must be a .pt, .pth, .h5 or .hdf5 file, or a folder of class "
            "folders or Parquet files"
        )
    if isinstance(content, dict):
        for images, labels in PAIRS:
            if images in content and labels in content:
                return content[images], content[labels]
        if isinstance(content.get("data"), list | tuple) and content["data"]:
            content = content["data"][0]
    if isinstance(content, list | tuple) and len(content) == 2:
        return content[0], content[1]
    if isinstance(content, torch.Tensor) and (beside := _labels_beside(file)) is not None:
        return content, _load(path, beside)
    names = one_of(f"{a} and {b}" for a, b in PAIRS)
    raise InputError(
        f"images.path is {path!r}, which contains no images with labels; it must contain {names}, or be a "
        "tensor in a file images*.pt next to a file labels*.pt"
    )


def _load(path: str, file: Path) -> Any:
    try:
        return read_tensors(file)
    except ValueError as error:
        raise InputError(f"images.path is {path!r}, where {file.name} cannot be read ({error})") from None


def _hdf5(path: str, file: Path) -> dict[str, Any]:
    try:
        return read_hdf5(file, [name for pair in PAIRS for name in pair])
    except ImportError:
        raise InputError(
            f"images.path is {path!r}, which needs the package h5py; run `pip install raydc[hub]`"
        ) from None
    except ValueError as error:
        raise InputError(f"images.path is {path!r}, where {file.name} cannot be read ({error})") from None


def _pair(path: str, images: Any, labels: Any, classes: int) -> ImportedSet:
    """The set of these arrays; raises `InputError` if they do not fit together."""
    try:
        pixels, targets = _array(images), _array(labels)
    except (TypeError, ValueError):
        raise InputError(f"images.path is {path!r}, whose images and labels are not arrays") from None
    if pixels.ndim != 4 or pixels.dtype.kind not in "uif" or targets.dtype.kind not in "uif":
        raise InputError(
            f"images.path is {path!r}, whose images are {pixels.dtype} of shape {list(pixels.shape)}, but "
            "must be numbers [N, C, H, W]"
        )
    if len(targets) != len(pixels) or targets.ndim not in (1, 2):
        raise InputError(
            f"images.path is {path!r}, which has {len(pixels)} images and labels of shape "
            f"{list(targets.shape)}; there must be one label per image"
        )
    pixels = np.ascontiguousarray(pixels if pixels.dtype == np.uint8 else pixels.astype(np.float32))
    if targets.ndim == 1 or targets.shape[1] == 1:
        return ImportedSet(pixels, targets.reshape(-1).astype(np.int64))
    soft = _soft(path, targets.astype(np.float32), classes)
    return ImportedSet(pixels, soft.argmax(1).astype(np.int64), soft)


def _array(value: Any) -> NDArray[Any]:
    return np.asarray(value.detach() if isinstance(value, torch.Tensor) else flat(value))


def _soft(path: str, soft: NDArray[np.float32], classes: int) -> NDArray[np.float32]:
    if soft.ndim != 2 or soft.shape[1] != classes:
        raise InputError(
            f"images.path is {path!r}, whose soft labels have {soft.shape[1]} entries, but the data have "
            f"{classes} classes"
        )
    if not np.isfinite(soft).all() or (soft < 0).any():
        raise InputError(
            f"images.path is {path!r}, whose soft labels are not all finite and at least 0; store "
            "probabilities, not logits"
        )
    return soft


def _decoded(path: str, split: EncodedSplit) -> NDArray[np.uint8]:
    """All images of a split; they must have the same shape."""
    images = decode_images(split.encoded(number) for number in range(len(split.labels)))
    if any(image.ndim == 3 for image in images):
        images = [image if image.ndim == 3 else np.stack([image] * 3, 2) for image in images]
    shapes = {image.shape for image in images}
    if len(shapes) > 1:
        raise InputError(
            f"images.path is {path!r}, whose images have the shapes {one_of(sorted(shapes)[:4])}; all "
            "images of a compressed set must have the same shape"
        )
    if not images:
        return np.empty((0, 1, 1, 1), np.uint8)
    pixels = np.stack(images)
    return pixels[:, None] if pixels.ndim == 3 else np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))


def _folders(path: str, root: Path, class_names: Sequence[str]) -> ImportedSet:
    folders = sorted(entry for entry in root.iterdir() if entry.is_dir())
    numbers = _class_numbers(path, [folder.name for folder in folders], class_names)
    files: list[Path] = []
    labels: list[int] = []
    for folder, number in zip(folders, numbers, strict=True):
        found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
        files += found
        labels += [number] * len(found)
    split = FolderSplit(files, np.asarray(labels, np.int64))
    return ImportedSet(_decoded(path, split), split.labels)


def _class_numbers(path: str, folders: list[str], class_names: Sequence[str]) -> list[int]:
    """Class numbers of folders: by name, by a number in the name (new000, 7), or by order."""
    if folders and set(folders) <= set(class_names):
        return [list(class_names).index(name) for name in folders]
    found = [re.fullmatch(r"\D*(\d+)", name) for name in folders]
    numbers = [int(match[1]) for match in found if match is not None]
    if len(numbers) == len(folders) == len(set(numbers)) and max(numbers, default=-1) < len(class_names):
        return numbers
    if len(folders) == len(class_names):
        return list(range(len(folders)))
    raise InputError(
        f"images.path is {path!r}, which has {len(folders)} folders ({one_of(folders[:3]) or 'none'}, ...); "
        f"their names must be the names or the numbers of the data's {len(class_names)} classes"
    )


def _of_train(files: list[Path]) -> list[Path]:
    """The files of the train split, if file names contain splits: a set must not contain test images."""
    splits = {file: split_of(file) for file in files}
    named = any(split is not None for split in splits.values())
    return [file for file in files if splits[file] == "train"] if named else files


def _numbered(
    path: str, labels: NDArray[np.int64], names: tuple[str, ...] | None, class_names: Sequence[str]
) -> NDArray[np.int64]:
    """Labels with the class numbers of the data, if the file has class names of its own."""
    if names is None or tuple(names) == tuple(class_names):
        return labels
    unknown = sorted(set(names) - set(class_names))
    if unknown:
        raise InputError(
            f"images.path is {path!r}, which has the class {unknown[0]!r}, but the data's classes are "
            f"{', '.join(class_names[:12])}{', ...' if len(class_names) > 12 else ''}"
        )
    number = np.array([list(class_names).index(name) for name in names], np.int64)
    return np.asarray(np.where(labels >= 0, number[labels], labels))


def _own(path: str, folder: Path, classes: int) -> ImportedSet:
    """A set that was written by raydc, according to its metadata."""
    try:
        own = CompressedSet.load(folder)
    except ArtifactError as error:
        raise InputError(f"images.path is {path!r}, where {error}") from None
    soft = None if own.soft_labels is None else _soft(path, own.soft_labels, classes)
    found = _pair(path, own.images, own.labels, classes)
    return replace(found, soft_labels=soft, space=own.space, grid=own.grid)


def _parquet(path: str, root: Path, files: list[Path], class_names: Sequence[str]) -> ImportedSet:
    schema = read_schema(files[0])
    if b"raydc" in (schema.metadata or {}):
        return _own(path, files[0].parent, len(class_names))
    columns = image_and_label(schema, files[0])
    split = ParquetSplit(files, columns)
    soft = None
    if "soft_label" in schema.names:
        listed = [entry for file in files for entry in read_column(file, "soft_label").to_pylist()]
        try:
            entries = np.asarray(listed, np.float32)
        except (ValueError, TypeError):
            raise InputError(f"images.path is {path!r}, whose soft labels differ in length") from None
        soft = _soft(path, entries, len(class_names))
    labels = _numbered(path, split.labels, class_names_of(schema, columns[1]), class_names)
    if soft is not None and not np.array_equal(labels, split.labels):
        raise InputError(
            f"images.path is {path!r}, whose soft labels order the classes differently than the data; "
            "write them in the data's order"
        )
    return ImportedSet(_decoded(path, split), labels, soft)
