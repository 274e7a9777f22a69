"""Logits at rest: Arrow IPC files that all workers of a machine map into memory and share.

One record batch with one column `logits`, a fixed-size list of C float32 an image. Reading copies
nothing; the array is read-only, so nobody can damage what others read.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

FILE = "logits.arrow"


def write_logits(folder: Path, logits: NDArray[np.float32]) -> None:
    """Write logits [N, C] float32 into `folder`."""
    flat = pa.array(np.ascontiguousarray(logits, np.float32).ravel())
    column = pa.FixedSizeListArray.from_arrays(flat, logits.shape[1])
    batch = pa.record_batch([column], names=["logits"])
    with pa.OSFile(str(folder / FILE), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)


def read_logits(folder: Path) -> NDArray[np.float32]:
    """Logits [N, C] float32, mapped and read-only."""
    with pa.memory_map(str(folder / FILE)) as source:
        column = pa.ipc.open_file(source).get_batch(0).column(0)
    values: NDArray[np.float32] = column.flatten().to_numpy(zero_copy_only=True)
    return values.reshape(len(column), -1)
