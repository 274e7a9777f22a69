"""Contact sheets of compressed sets."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from raydc.analysis.curves import finished, group
from raydc.data.image_set import CompressedSet
from raydc.report.figures import Sheet
from raydc.spec.result import Row
from raydc.store.artifact import Store

COLUMNS = 10
MOST_CLASSES = 10
SIDE_PIXELS = 32
"""Smaller images are enlarged to at least this size."""
MOST_SHEETS = 8


def sheets(rows: Sequence[Row], store: Store) -> list[Sheet]:
    """One sheet per method: its set nearest to ten images per class, first replicate."""
    found = []
    for (method, end), members in group(finished(rows), ["images.method", "images.end"]).items():
        row = min(members, key=lambda r: (abs(r["images.ipc"] - COLUMNS), r["seed"]))
        artifact = store.find("set", str(row.get("set_id")))
        if artifact is None:
            continue
        compressed = CompressedSet.load(artifact.folder)
        if compressed.space != "pixel":
            continue
        name = f"{method}, {end}" if end else str(method)
        found.append(
            Sheet(
                title=f"{name}, IPC {row['images.ipc']}",
                caption=f"{len(compressed)} images, {compressed.images_bytes:,} bytes; one row per class.",
                png=_png(compressed),
            )
        )
    return found[:MOST_SHEETS]


def _png(compressed: CompressedSet) -> bytes:
    labels = sorted(set(compressed.labels.tolist()))[:MOST_CLASSES]
    images = compressed.images
    side = images.shape[2]
    enlarge = max(1, -(-SIDE_PIXELS // side))
    gap = 1
    cell = side + gap
    columns = min(COLUMNS, max(int((compressed.labels == c).sum()) for c in labels))
    sheet: NDArray[np.uint8] = np.full((len(labels) * cell - gap, columns * cell - gap, 3), 255, np.uint8)
    for row, label in enumerate(labels):
        for column, index in enumerate(np.flatnonzero(compressed.labels == label)[:columns]):
            top, left = row * cell, column * cell
            sheet[top : top + side, left : left + side] = images[index].transpose(1, 2, 0)
    picture = Image.fromarray(sheet)
    picture = picture.resize((picture.width * enlarge, picture.height * enlarge), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
