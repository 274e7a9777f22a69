"""Arrays of an HDF5 file, with limits: a small file may declare a terabyte or refer to other files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raydc.data.limits import MOST_TIMES_THE_FILE, most_bytes


def read_hdf5(file: Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """The numeric arrays among `names` at the top level of `file`.

    Raises `ImportError` without h5py, and `ValueError`, with a short reason, for a file that is not HDF5 and
    for arrays that are not numeric, lie in other files, or exceed the limit of `raydc.data.limits`.
    """
    import h5py

    try:
        with h5py.File(file, "r") as opened:
            return {name: _array(h5py, opened, name, most_bytes(file)) for name in names if name in opened}
    except Exception as error:  # damaged bytes make HDF5 raise errors of many kinds
        raise ValueError(" ".join(str(error).split())[:160]) from None


def _array(h5py: Any, opened: Any, name: str, limit: int) -> NDArray[Any]:
    if not isinstance(opened.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"{name} is a link, which is not followed")
    array = opened[name]
    if not isinstance(array, h5py.Dataset) or array.shape is None or array.dtype.kind not in "uif":
        raise ValueError(f"{name} is not an array of numbers")
    if array.is_virtual or array.external:
        raise ValueError(f"{name} is stored in other files, which are not read")
    chunk = math.prod(array.chunks or ()) * array.dtype.itemsize
    if chunk > limit:  # a chunk is decompressed as a whole, even if the array is smaller
        raise ValueError(
            f"{name} has chunks of {chunk:,} bytes, but at most {MOST_TIMES_THE_FILE} times the file size "
            "is read"
        )
    if array.nbytes > limit:
        raise ValueError(
            f"{name} has the shape {list(array.shape)}, which is {array.nbytes:,} bytes, but at most "
            f"{MOST_TIMES_THE_FILE} times the file size is read"
        )
    return np.asarray(array)
