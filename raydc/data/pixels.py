"""Pixels of a split: decoded in a mapped array, or encoded in a mapped file and decoded on access.

Encoded images are decoded by threads, since PIL releases the GIL while it decodes and resizes (measured on
two cores: 625 images of 500 x 375 per second with 2 threads, 567 with 2 processes). Batches are started in
the requested order, a limited number in advance, and are returned in the same order:

    caller --rows--> pending batches (at most AHEAD images, at least two batches) --> uint8 batches
                            |      ^
                            v      |
                       threads: read, check, decode, resize, crop
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from raydc.data.array_file import read_array
from raydc.data.source import decode_image
from raydc.errors import ArtifactError

Rows = NDArray[np.int64]
AHEAD = 1024
"""Number of images that are decoded before they are needed."""
TASK = 8
"""Number of images per task of a thread."""


class Pixels(Protocol):
    """Images of a split."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(M, C, H, W)."""

    def take(self, rows: Rows) -> NDArray[np.uint8]:
        """Images [n, C, H, W] at the given rows."""

    def each(self, batches: Iterable[Rows]) -> Iterator[NDArray[np.uint8]]:
        """`take` for each batch of rows; `batches` may be read in advance."""


@dataclass(frozen=True)
class DecodedPixels:
    """Images in an array."""

    array: NDArray[np.uint8]
    """[M, C, H, W], memory-mapped."""

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    def take(self, rows: Rows) -> NDArray[np.uint8]:
        return self.array[rows]

    def each(self, batches: Iterable[Rows]) -> Iterator[NDArray[np.uint8]]:
        return map(self.take, batches)


class EncodedPixels:
    """Encoded images, concatenated in one file."""

    def __init__(
        self, folder: Path, split: str, shape: tuple[int, int, int], remove: Callable[[], None]
    ) -> None:
        """`folder` and `split`: as written by `raydc.data.decoding`; shape: [C, H, W] of every decoded image;
        `remove`: removes the images from the store for all processes.
        """
        self._file = folder / f"{split}.bin"
        self._bytes = np.memmap(self._file, np.uint8, "r")
        self._inode = self._file.stat().st_ino
        self._ends: NDArray[np.int64] = read_array(folder / f"{split}_ends.npy")
        self._sums: NDArray[np.uint32] = read_array(folder / f"{split}_crc32.npy")
        self._shape = shape
        self._remove = remove

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self._ends), *self._shape

    def image(self, row: int) -> NDArray[np.uint8]:
        """Image [C, H, W]; raises `ArtifactError` if its bytes differ from those that were written."""
        start = int(self._ends[row - 1]) if row else 0
        encoded = self._bytes[start : int(self._ends[row])].tobytes()
        if zlib.crc32(encoded) != self._sums[row]:
            self._discard()
            raise ArtifactError(f"{self._file}: image {row} does not have the bytes that were written")
        return planes(decode_image(encoded, f"{self._file}: image {row}"), self._shape[1])[: self._shape[0]]

    def _discard(self) -> None:
        """Remove the images from the store, so that they are made again, unless they were replaced before."""
        with suppress(OSError):
            if self._file.stat().st_ino == self._inode:
                self._remove()

    def take(self, rows: Rows) -> NDArray[np.uint8]:
        return next(self.each([rows]))

    def each(self, batches: Iterable[Rows]) -> Iterator[NDArray[np.uint8]]:
        pending: deque[_Batch] = deque()
        try:
            for rows in batches:
                pending.append(self._begin(rows))
                while len(pending) > 2 and sum(len(b.images) for b in pending) > AHEAD:
                    yield pending.popleft().done()
            while pending:
                yield pending.popleft().done()
        finally:
            for batch in pending:
                batch.cancel()

    def _begin(self, rows: Rows) -> _Batch:
        images = np.empty((len(rows), *self._shape), np.uint8)
        tasks = [
            self._threads.submit(self._fill, images[start : start + TASK], rows[start : start + TASK])
            for start in range(0, len(rows), TASK)
        ]
        return _Batch(images, tasks)

    def _fill(self, images: NDArray[np.uint8], rows: Rows) -> None:
        for place, row in enumerate(rows.tolist()):
            images[place] = self.image(row)

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        """As many threads as torch uses in this process."""
        return ThreadPoolExecutor(torch.get_num_threads(), thread_name_prefix="decode")


@dataclass(frozen=True)
class _Batch:
    """Images that are being decoded."""

    images: NDArray[np.uint8]
    tasks: list[Future[None]]

    def done(self) -> NDArray[np.uint8]:
        """Wait for all images; raises the first error, if any."""
        for task in self.tasks:
            task.result()
        return self.images

    def cancel(self) -> None:
        for task in self.tasks:
            task.cancel()


def planes(image: NDArray[np.uint8], side: int | None) -> NDArray[np.uint8]:
    """[H, W] or [H, W, 3] -> [3, side, side]: shorter side resized (bilinear), centre cropped.

    Without a side the image keeps its size.
    """
    if side is not None and image.shape[:2] != (side, side):
        height, width = image.shape[:2]
        scale = side / min(height, width)
        size = (max(side, round(width * scale)), max(side, round(height * scale)))
        resized = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)
        left, top = (size[0] - side) // 2, (size[1] - side) // 2
        image = np.asarray(resized.crop((left, top, left + side, top + side)))
    if image.ndim == 2:
        image = np.repeat(image[:, :, None], 3, axis=2)
    return np.ascontiguousarray(image.transpose(2, 0, 1))
