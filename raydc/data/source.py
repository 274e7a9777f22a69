"""Sources of labelled images: a dataset before its images are decoded.

A source has two splits, train and test, of encoded or decoded images with labels, and a stamp: a string that
is cheap to compute and changes when the files change. Sources: `raydc.data.builtin`, `parquet`,
`image_folder`.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from raydc.data.limits import ALWAYS_READ_BYTES, MOST_TIMES_THE_FILE
from raydc.errors import InputError

LARGEST_IMAGE_PIXELS = 50_000_000
"""Largest number of pixels of an image; a larger one is an error."""
LARGEST_RATIO = 200
"""Largest ratio of the longer side of an image to the shorter one."""
FORMATS = ("PNG", "JPEG", "MPO", "BMP", "WEBP", "GIF", "TIFF", "PPM")
"""Image formats that are decoded; Pillow supports more, some of them by running other programs."""
TEST_NAMES = ("test", "val", "valid", "validation")
"""Names of the test split, in order of preference."""


class Split(Protocol):
    """Images with labels, read one at a time."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """[N], class numbers; -1 for an image without a label."""

    def image(self, index: int) -> NDArray[np.uint8]:
        """Image `index` as [H, W] or [H, W, 3]; raises `InputError` if it cannot be decoded."""


@runtime_checkable
class EncodedSplit(Split, Protocol):
    """Images that are stored encoded."""

    def encoded(self, index: int) -> tuple[bytes, str]:
        """The bytes of image `index` and its name in messages; raises `InputError` if it cannot be read."""


@dataclass(frozen=True)
class Source:
    """A dataset on this machine."""

    name: str
    """Name in messages."""
    class_names: tuple[str, ...]
    train: Split
    test: Split
    stamp: str
    """Key of the cache of decoded images; changes when the files change."""


def decode_image(encoded: bytes, where: str) -> NDArray[np.uint8]:
    """An encoded image as [H, W] (grey) or [H, W, 3]; raises `InputError` with `where` if it is corrupt."""
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
            _check_size(image.width, image.height, where)
            mode = "L" if image.mode in ("1", "L", "I;16", "I", "F", "LA") else "RGB"
            return np.asarray(image.convert(mode), dtype=np.uint8)
    except InputError:
        raise
    except Exception as error:  # for a damaged image, Pillow's decoders raise errors of many kinds
        reason = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            reason = "it is not an image of a known format"
        raise InputError(f"{where}: the image cannot be decoded ({reason}); replace or remove it") from None


def _check_size(width: int, height: int, where: str) -> None:
    if width * height > LARGEST_IMAGE_PIXELS:
        raise InputError(
            f"{where}: the image has {width} x {height} pixels, but at most {LARGEST_IMAGE_PIXELS:,} are "
            "read; shrink it"
        )
    # Resizing the shorter side of a very narrow image would produce a huge image.
    if not 0 < max(width, height) <= LARGEST_RATIO * min(width, height):
        raise InputError(
            f"{where}: the image has {width} x {height} pixels, but one side may be at most {LARGEST_RATIO} "
            "times the other; crop it"
        )


def decode_images(encoded: Iterable[tuple[bytes, str]]) -> list[NDArray[np.uint8]]:
    """Like `decode_image`, for several images held in memory at once, with a limit on their total size."""
    images = []
    given = unfolded = 0
    for content, where in encoded:
        images.append(decode_image(content, where))
        given += len(content)
        unfolded += images[-1].nbytes
        if unfolded > max(ALWAYS_READ_BYTES, MOST_TIMES_THE_FILE * given):
            raise InputError(
                f"{where}: the decoded images up to this one take more than {MOST_TIMES_THE_FILE} times "
                "their bytes; shrink them"
            )
    return images


def stamp_of(kind: str, files: Sequence[Path], root: Path) -> str:
    """A stamp from the relative names, sizes and change times of files."""
    hasher = hashlib.sha256(kind.encode())
    for file in files:
        status = os.stat(file)
        hasher.update(f"{file.relative_to(root)}|{status.st_size}|{status.st_mtime_ns}\n".encode())
    return hasher.hexdigest()[:24]
