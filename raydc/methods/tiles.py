"""Stored images that combine several images: a grid of tiles, each a scaled image or crop."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from raydc.methods.pool import Rows

Pixels = NDArray[np.uint8]


def side_of(combine: str) -> int:
    """Number of tiles along a side of a grid such as `2x2`."""
    return int(combine.partition("x")[0])


def dealt(rows: Rows, ipc: int) -> Rows:
    """Ranked `rows` [tiles x ipc] as the sources [ipc, tiles] of stored images.

    Tile k of the images holds the ranks k ipc to (k + 1) ipc - 1 (LINs-lab/RDED: synthesize/utils.py).
    """
    return rows.reshape(-1, ipc).T


def edges(length: int, parts: int) -> list[int]:
    """Borders of the tiles along a side: parts + 1 whole numbers from 0 to length."""
    return [round(i * length / parts) for i in range(parts + 1)]


def scaled(
    image: Pixels,
    size: tuple[int, int],
    resample: Image.Resampling,
    window: tuple[int, int, int, int] | None = None,
) -> Pixels:
    """An image [C, H, W], or its window (left, top, right, bottom), resized to (width, height) pixels."""
    planes = [Image.fromarray(plane).resize(size, resample, box=window) for plane in image]
    return np.stack([np.asarray(plane) for plane in planes])


def tiled(shape: tuple[int, int, int], side: int, tile: Callable[[int, tuple[int, int]], Pixels]) -> Pixels:
    """One image [C, H, W] of side x side tiles, row by row.

    `tile(number, (width, height))` makes each tile [C, height, width]; sizes differ by one pixel if the side
    is not divisible.
    """
    out = np.empty(shape, np.uint8)
    rows, columns = edges(shape[1], side), edges(shape[2], side)
    for number in range(side * side):
        i, j = divmod(number, side)
        size = (columns[j + 1] - columns[j], rows[i + 1] - rows[i])
        out[:, rows[i] : rows[i + 1], columns[j] : columns[j + 1]] = tile(number, size)
    return out
