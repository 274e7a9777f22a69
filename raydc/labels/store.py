"""Logits at rest: Arrow IPC files that all workers of a machine map into memory and share.

One record batch with one column `logits`, a fixed-size list of C float32 an image. Reading copies
nothing; the array is read-only, so nobody can damage what others read.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raydc.errors import ArtifactError

FILE = "logits.arrow"


def write_logits(folder: Path, logits: NDArray[np.float32]) -> None:
    """Write logits [N, C] float32 into `folder`."""
    flat = pa.array(np.ascontiguousarray(logits, np.float32).ravel())
    column = pa.FixedSizeListArray.from_arrays(flat, logits.shape[1])
    batch = pa.record_batch([column], names=["logits"])
    with pa.OSFile(str(folder / FILE), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)


def read_logits(folder: Path) -> NDArray[np.float32]:
    """Logits [N, C] float32, mapped and read-only; `ArtifactError` if the file holds anything else."""
    file = folder / FILE
    try:
        with pa.memory_map(str(file)) as source:
            opened = pa.ipc.open_file(source)
            kind = opened.schema.field(0).type
            if not pa.types.is_fixed_size_list(kind) or kind.value_type != pa.float32():
                raise pa.ArrowInvalid(f"its first column is {kind}")
            column = opened.get_batch(0).column(0)
        column.validate(full=True)
        values: NDArray[np.float32] = column.flatten().to_numpy(zero_copy_only=True)
        return values.reshape(len(column), kind.list_size)
    except (pa.ArrowException, OSError, ValueError, IndexError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ArtifactError(
            f"{file} holds no logits ({reason}); remove the folder {str(folder)!r}, and it is made again"
        ) from None
