"""Logits at rest: Arrow IPC files that all workers of a machine map into memory and share.

One record batch with one column `logits`, a fixed-size list of C float32 an image. Reading copies
nothing; the array is read-only, so nobody can damage what others read. A sum says that a file is as it was
written, not that it is what its reader expects, so rows and classes are looked at too.
"""

from __future__ import annotations

from collections.abc import Iterable
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


def read_logits(folder: Path, rows: int | None = None, classes: int | None = None) -> NDArray[np.float32]:
    """Logits [N, C] float32, mapped and read-only; `ArtifactError` if the file holds anything else.

    rows, classes: N and C where the reader knows them.
    """
    file = folder / FILE
    try:
        with pa.memory_map(str(file)) as source:
            opened = pa.ipc.open_file(source)
            kind = opened.schema.field(0).type
            if not pa.types.is_fixed_size_list(kind) or kind.value_type != pa.float32():
                raise pa.ArrowInvalid(f"its first column is {kind}")
            if opened.num_record_batches != 1:
                raise pa.ArrowInvalid(f"it has {opened.num_record_batches} record batches instead of 1")
            column = opened.get_batch(0).column(0)
        column.validate(full=True)
        values: NDArray[np.float32] = column.flatten().to_numpy(zero_copy_only=True)
        read = values.reshape(len(column), kind.list_size)
    except (pa.ArrowException, OSError, ValueError, IndexError) as error:
        reason = " ".join(str(error).split())[:120]
        raise not_as_made(folder, f"{file} holds no logits ({reason})") from None
    if read.shape != (rows if rows is not None else len(read), classes or kind.list_size):
        raise not_as_made(
            folder,
            f"{file} holds logits of {len(read):,} images and {kind.list_size:,} classes, but there are "
            f"{len(read) if rows is None else rows:,} and {classes or kind.list_size:,}",
        )
    return read


def read_together(
    folders: Iterable[Path], rows: int | None = None, classes: int | None = None
) -> NDArray[np.float32]:
    """Logits [K, N, C] float32 of K networks; N and C are those of the first where they are not given."""
    read: list[NDArray[np.float32]] = []
    for folder in folders:
        read.append(read_logits(folder, rows, classes))
        rows, classes = read[0].shape
    return np.stack(read)


def not_as_made(folder: Path, what: str) -> ArtifactError:
    """What is said of an artifact whose bytes are intact, but not what it should hold."""
    return ArtifactError(f"{what}; remove the folder {str(folder)!r}, and it is made again")
