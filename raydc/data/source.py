"""Sources of labelled images: what a dataset is before anything is decoded.

A source has two splits, train and test, of encoded or plain images with labels, and a stamp: a
cheap text that changes when its files do. Adapters: `raydc.data.builtin`, `parquet`, `folder`.
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
"""A larger image is refused instead of filling the memory."""
LARGEST_RATIO = 200
"""Of the longer side of an image to the shorter one."""
FORMATS = ("PNG", "JPEG", "MPO", "BMP", "WEBP", "GIF", "TIFF", "PPM")
"""What is decoded; Pillow knows more, and runs another program for some of it."""
TEST_NAMES = ("test", "val", "valid", "validation")
"""Names of the test split, in order of preference."""


class Split(Protocol):
    """Images with labels, read one at a time."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """[N], class numbers; -1 where an image has no label."""

    def image(self, index: int) -> NDArray[np.uint8]:
        """Image `index` as [H, W] or [H, W, 3]; `InputError` names it if it cannot be decoded."""


@runtime_checkable
class EncodedSplit(Split, Protocol):
    """Images that are stored encoded."""

    def encoded(self, index: int) -> tuple[bytes, str]:
        """The bytes of image `index`, and what messages call it; `InputError` if it cannot be read."""


@dataclass(frozen=True)
class Source:
    """A dataset on this machine."""

    name: str
    """What messages call it."""
    class_names: tuple[str, ...]
    train: Split
    test: Split
    stamp: str
    """Changes when the files do; the decoded cache is found by it."""


def decode_image(encoded: bytes, where: str) -> NDArray[np.uint8]:
    """An encoded image as [H, W] (grey) or [H, W, 3]; `InputError` names `where` if it is corrupt."""
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
            _check_size(image.width, image.height, where)
            mode = "L" if image.mode in ("1", "L", "I;16", "I", "F", "LA") else "RGB"
            return np.asarray(image.convert(mode), dtype=np.uint8)
    except InputError:
        raise
    except Exception as error:  # a damaged image makes Pillow raise whatever its decoders raise
        reason = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            reason = "it is no image of a known format"
        raise InputError(f"{where}: the image cannot be decoded ({reason}); replace or remove it") from None


def _check_size(width: int, height: int, where: str) -> None:
    if width * height > LARGEST_IMAGE_PIXELS:
        raise InputError(
            f"{where}: the image has {width} x {height} pixels, but at most {LARGEST_IMAGE_PIXELS:,} are "
            "read; shrink it"
        )
    # Resizing the shorter side of a line would make an image as large as nobody declared.
    if not 0 < max(width, height) <= LARGEST_RATIO * min(width, height):
        raise InputError(
            f"{where}: the image has {width} x {height} pixels, but one side may be at most {LARGEST_RATIO} "
            "times the other; crop it"
        )


def decode_images(encoded: Iterable[tuple[bytes, str]]) -> list[NDArray[np.uint8]]:
    """As `decode_image`, many that are held at once; together they may unfold to so much and no more."""
    images = []
    given = unfolded = 0
    for content, where in encoded:
        images.append(decode_image(content, where))
        given += len(content)
        unfolded += images[-1].nbytes
        if unfolded > max(ALWAYS_READ_BYTES, MOST_TIMES_THE_FILE * given):
            raise InputError(
                f"{where}: the images up to this one unfold to more than {MOST_TIMES_THE_FILE} times their "
                "bytes; shrink them"
            )
    return images


def stamp_of(kind: str, files: Sequence[Path], root: Path) -> str:
    """A stamp from the relative names, sizes and change times of files."""
    text = hashlib.sha256(kind.encode())
    for file in files:
        status = os.stat(file)
        text.update(f"{file.relative_to(root)}|{status.st_size}|{status.st_mtime_ns}\n".encode())
    return text.hexdigest()[:24]
