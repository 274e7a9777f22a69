"""The cache of a dataset's images: made once per store, memory-mapped by all processes of a machine.

    store/pixels/NAME/train.npy           decoded images [M, C, H, W] uint8, or, above the limit,
                      train.bin           the concatenated bytes of their files,
                      train_ends.npy      the end of each image in train.bin, and
                      train_crc32.npy     the checksum of each image, verified when it is read
                      train_labels.npy    classes; the same files for test

The fingerprint is that of the decoded images in both cases.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from raydc.data.array_file import read_array
from raydc.data.image_set import encode_image
from raydc.data.pixels import DecodedPixels, EncodedPixels, Pixels, planes
from raydc.data.source import EncodedSplit, Source, Split, decode_image
from raydc.errors import InputError
from raydc.spec.evaluation import DatasetSpec
from raydc.store.artifact import Artifact, Draft, Store, get

DECODED = 1
"""Version of the cache; a new version decodes the images again."""
SPLITS = ("train", "test")


def decoded(source: Source, spec: DatasetSpec, store: Store) -> Artifact:
    """The images of `source` at the resolution of `spec`, from the store or decoded now."""
    # The limit decides whether images are stored decoded or encoded.
    stamp = f"{source.stamp}-{spec.resolution or 'native'}-{spec.cache_limit_gib:g}-{DECODED}"
    if (known := store.find("source", stamp)) is not None:
        pixels = store.find("pixels", str(known.meta["pixels"]))
        if pixels is not None:
            return pixels
    name = _decode(source, spec, store)
    store.remove("source", stamp)
    with store.draft("source") as draft:
        draft.commit(stamp, pixels=name)
    return get(store, "pixels", name)


def pixels_of(cache: Artifact, split: str, store: Store) -> Pixels:
    """The images of a split in the store."""
    if (shape := cache.meta.get("encoded", {}).get(split)) is not None:
        remove = partial(store.remove, "pixels", cache.folder.name)
        return EncodedPixels(cache.folder, split, tuple(shape), remove)
    # Mapped copy-on-write, so a process cannot damage what other processes read.
    return DecodedPixels(read_array(cache.path(f"{split}.npy"), mapped=True))


def _decode(source: Source, spec: DatasetSpec, store: Store) -> str:
    hasher = hashlib.sha256()
    with store.draft("pixels") as draft:
        grey = True
        shapes: dict[str, tuple[int, ...]] = {}
        encoded: dict[str, tuple[int, ...]] = {}
        for split_name, split in zip(SPLITS, (source.train, source.test), strict=True):
            _check_labels(source, split_name, split)
            shapes[split_name], kept_encoded, all_grey = _write_split(
                split, source.name, spec, draft, split_name, hasher
            )
            if kept_encoded:
                encoded[split_name] = shapes[split_name]
            grey &= all_grey
            hasher.update(split.labels.astype("<i8").tobytes())
            np.save(draft.path(f"{split_name}_labels.npy"), split.labels)
        if shapes["train"] != shapes["test"]:
            raise InputError(
                f"{source.name}: train images have the shape {shapes['train']} and test images "
                f"{shapes['test']}; set dataset.resolution"
            )
        if grey:
            encoded = {split_name: (1, *shape[1:]) for split_name, shape in encoded.items()}
            for split_name in set(SPLITS) - set(encoded):
                path = draft.path(f"{split_name}.npy")
                np.save(path, np.ascontiguousarray(np.load(path)[:, :1]))
        fingerprint = hasher.hexdigest()
        parts = [fingerprint[:20], str(spec.resolution or "native"), str(DECODED)]
        name = "-".join([*parts, *(f"{split_name}_encoded" for split_name in encoded)])
        draft.commit(name, fingerprint=fingerprint, class_names=list(source.class_names), encoded=encoded)
    return name


def _check_labels(source: Source, split_name: str, split: Split) -> None:
    classes = len(source.class_names)
    if len(split.labels) == 0:
        raise InputError(f"{source.name}: the {split_name} split is empty; add images")
    if split.labels.min() < 0 or split.labels.max() >= classes:
        raise InputError(
            f"{source.name}: the {split_name} split has labels from {split.labels.min()} to "
            f"{split.labels.max()}, but there are {classes} classes, from 0 to {classes - 1}"
        )


def _write_split(
    split: Split, name: str, spec: DatasetSpec, draft: Draft, split_name: str, hasher: hashlib._Hash
) -> tuple[tuple[int, ...], bool, bool]:
    """Write the images; returns (shape [C, H, W], whether they stay encoded, whether all are grey)."""
    count = len(split.labels)
    grey = True
    writer: _Writer | None = None
    shape: tuple[int, ...] = ()
    for row, (encoded, image) in enumerate(_images(split)):
        hasher.update(f"{image.shape}".encode())
        hasher.update(np.ascontiguousarray(image).tobytes())
        grey &= image.ndim == 2
        height, width = (spec.resolution or side for side in image.shape[:2])
        if height != width:
            raise InputError(
                f"{name}: image {row} has {width} x {height} pixels, which is not square; set "
                "dataset.resolution"
            )
        if writer is None:
            shape = (3, height, width)
            large = count * 3 * height * width > spec.cache_limit_gib * 2**30
            if large and spec.zca:
                raise InputError(zca_refusal(name, spec, count * 3 * height * width))
            writer = (_EncodedWriter if large else _DecodedWriter)(draft, split_name, (count, *shape))
        if (3, height, width) != shape:
            raise InputError(
                f"{name}: image {row} has {width} x {height} pixels and the first {shape[2]} x {shape[1]}; "
                "set dataset.resolution"
            )
        writer.add(row, encoded, image)
    assert writer is not None
    writer.close()
    return shape, isinstance(writer, _EncodedWriter), grey


def zca_refusal(name: str, spec: DatasetSpec, size: int) -> str:
    """The message that encoded images cannot be whitened."""
    return (
        f"{name}: dataset.zca needs all pixels in memory at once, but a split takes {size / 2**30:.1f} GiB, "
        f"above dataset.cache_limit_gib {spec.cache_limit_gib:g}; raise it, set dataset.resolution, or "
        "remove zca"
    )


def _images(split: Split, ahead: int = 256) -> Iterator[tuple[bytes | None, NDArray[np.uint8]]]:
    """(encoded bytes or None, decoded image) in order; chunks of `ahead` images are decoded by threads."""

    def load(row: int) -> tuple[bytes | None, NDArray[np.uint8]]:
        if isinstance(split, EncodedSplit):
            encoded, where = split.encoded(row)
            return encoded, decode_image(encoded, where)
        return None, split.image(row)

    count = len(split.labels)
    with ThreadPoolExecutor(max_workers=4) as pool:
        for start in range(0, count, ahead):
            yield from pool.map(load, range(start, min(start + ahead, count)))


class _Writer(Protocol):
    def __init__(self, draft: Draft, split: str, shape: tuple[int, ...]) -> None: ...

    def add(self, row: int, encoded: bytes | None, image: NDArray[np.uint8]) -> None:
        """Add image [H, W] or [H, W, 3], and its encoded bytes if it has any; rows are added in order."""

    def close(self) -> None: ...


class _DecodedWriter:
    """Writes an array [M, C, H, W]."""

    def __init__(self, draft: Draft, split: str, shape: tuple[int, ...]) -> None:
        self._side = shape[2]
        path = draft.path(f"{split}.npy")
        self._out = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
        # A full disk raises an error here; when writing to the mapped memory it would kill the process.
        with path.open("rb+") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)

    def add(self, row: int, encoded: bytes | None, image: NDArray[np.uint8]) -> None:
        del encoded
        self._out[row] = planes(image, self._side)

    def close(self) -> None:
        self._out.flush()


class _EncodedWriter:
    """Writes the concatenated bytes of the image files; images without bytes are encoded as PNG."""

    def __init__(self, draft: Draft, split: str, shape: tuple[int, ...]) -> None:
        del shape
        self._draft, self._split = draft, split
        # Too large to be verified at every start; each image is verified when it is read.
        self._file = draft.large(f"{split}.bin").open("wb")
        self._lengths: list[int] = []
        self._sums: list[int] = []

    def add(self, row: int, encoded: bytes | None, image: NDArray[np.uint8]) -> None:
        del row
        if encoded is None:
            encoded = encode_image(image[None] if image.ndim == 2 else image.transpose(2, 0, 1), "png")
        self._file.write(encoded)
        self._lengths.append(len(encoded))
        self._sums.append(zlib.crc32(encoded))

    def close(self) -> None:
        self._file.close()
        np.save(self._draft.path(f"{self._split}_ends.npy"), np.cumsum(self._lengths, dtype=np.int64))
        np.save(self._draft.path(f"{self._split}_crc32.npy"), np.asarray(self._sums, np.uint32))
