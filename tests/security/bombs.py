"""Files that are out to do harm, all made from one pickle: it makes a folder where it is opened."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch


class Bomb:
    """Pickled, it is a call of os.mkdir with the canary's path."""

    def __init__(self, canary: Path) -> None:
        self._canary = str(canary)

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, (self._canary,)


def pickled(canary: Path, protocol: int = 2) -> bytes:
    """Protocol 2 is what torch.save writes and what its reader follows furthest."""
    return pickle.dumps(Bomb(canary), protocol=protocol)


def saved(value: object, legacy: bool = False) -> bytes:
    """What torch.save makes of a value."""
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def array(canary: Path) -> bytes:
    """A .npy file whose only number is the bomb."""
    buffer = io.BytesIO()
    np.save(buffer, np.array([Bomb(canary)], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def extension(canary: Path, kind: pa.DataType) -> pa.Schema:
    """A schema with a type that Arrow once unpickled when it read it (CVE-2023-47248)."""
    metadata = {
        "ARROW:extension:name": "arrow.py_extension_type",
        "ARROW:extension:metadata": pickled(canary),
    }
    return pa.schema([pa.field("image", kind, metadata=metadata), pa.field("label", pa.int64())])


IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def parquet(encoded: bytes, schema: pa.Schema | None = None) -> bytes:
    """A Parquet file of a hub with one image."""
    rows = [{"image": {"bytes": encoded, "path": "0.png"}, "label": 0}]
    table = pa.Table.from_pylist(rows, schema or pa.schema([("image", IMAGE), ("label", pa.int64())]))
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def hdf5(content: bytes) -> bytes:
    """An HDF5 file that holds plain bytes where images belong."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["data"] = np.void(content)
        file["label"] = np.zeros(1)
    return buffer.getvalue()
