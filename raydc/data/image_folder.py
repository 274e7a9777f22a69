"""Datasets in folders: train/ and test/ (or val/), each with one folder of image files per class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from raydc.data.source import TEST_NAMES, Source, decode_image, stamp_of
from raydc.errors import InputError, one_of

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")


class FolderSplit:
    """Encoded image files, each with the number of its class folder."""

    def __init__(self, files: list[Path], labels: NDArray[np.int64]) -> None:
        self._files = files
        self.labels = labels

    def encoded(self, index: int) -> tuple[bytes, str]:
        file = self._files[index]
        try:
            return file.read_bytes(), str(file)
        except OSError as error:
            raise InputError(f"{file}: the image cannot be read: {error.strerror}") from None

    def image(self, index: int) -> NDArray[np.uint8]:
        return decode_image(*self.encoded(index))


def folder(location: str) -> Source:
    """The dataset in the folder `location`; classes are numbered in alphabetical order."""
    root = Path(location)
    if not root.is_dir():
        raise InputError(
            f"dataset.folder is {location!r}, but there is no such folder; give the folder that holds "
            "train/ and test/"
        )
    test_names = [name for name in TEST_NAMES if (root / name).is_dir()]
    if not (root / "train").is_dir() or not test_names:
        raise InputError(
            f"dataset.folder is {location!r}, which must hold train/ and one of "
            f"{one_of(f'{name}/' for name in TEST_NAMES)}, each with one folder per class"
        )
    names = tuple(sorted(path.name for path in (root / "train").iterdir() if path.is_dir()))
    train, train_files = _split(root / "train", names)
    test_name = next((n for n in test_names if any((root / n / c).is_dir() for c in names)), None)
    if test_name is None:
        raise InputError(
            f"dataset.folder is {location!r}, whose {test_names[0]}/ has no class folder of train/ "
            f"({one_of(names[:5])}...); the same classes must be in both"
        )
    test, test_files = _split(root / test_name, names)
    return Source(root.name, names, train, test, stamp_of("folder", [*train_files, *test_files], root))


def _split(root: Path, names: tuple[str, ...]) -> tuple[FolderSplit, list[Path]]:
    unknown = sorted({p.name for p in root.iterdir() if p.is_dir()} - set(names))
    if unknown:
        raise InputError(
            f"{root}: the class {unknown[0]!r} is not in train/; the same classes must be in both"
        )
    files: list[Path] = []
    labels: list[int] = []
    for number, name in enumerate(names):
        if (root / name).is_dir():
            found = sorted(p for p in (root / name).rglob("*") if p.suffix.lower() in SUFFIXES)
            files += found
            labels += [number] * len(found)
    return FolderSplit(files, np.asarray(labels, dtype=np.int64)), files
