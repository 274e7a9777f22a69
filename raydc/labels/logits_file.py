"""Stored logits: Arrow IPC files that all workers of a machine map into memory and share.

One record batch with one column `logits`, a fixed-size list of C float32 per image. Reading copies nothing;
the array is read-only, so no process can change what others read. A checksum shows that a file is unchanged,
not that it is what its reader expects, so rows and classes are checked too.
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
    """Logits [N, C] float32, mapped and read-only; `ArtifactError` if the file contains anything else.

    rows, classes: N and C, if the reader knows them.
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
        raise not_as_made(folder, f"{file} contains no logits ({reason})") from None
    if read.shape != (rows if rows is not None else len(read), classes or kind.list_size):
        raise not_as_made(
            folder,
            f"{file} contains logits of {len(read):,} images and {kind.list_size:,} classes, but must have "
            f"{len(read) if rows is None else rows:,} and {classes or kind.list_size:,}",
        )
    return read


def read_together(
    folders: Iterable[Path], rows: int | None = None, classes: int | None = None
) -> NDArray[np.float32]:
    """Logits [K, N, C] float32 of K networks; N and C default to those of the first network."""
    read: list[NDArray[np.float32]] = []
    for folder in folders:
        read.append(read_logits(folder, rows, classes))
        rows, classes = read[0].shape
    return np.stack(read)


def not_as_made(folder: Path, what: str) -> ArtifactError:
    """The error for an artifact whose bytes are intact but whose content is wrong."""
    return ArtifactError(f"{what}; remove the folder {str(folder)!r}, and it is made again")
