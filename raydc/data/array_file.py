"""Arrays and weights of artifacts: without pickles, and within the size of the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from raydc.errors import ArtifactError


def read_array(file: Path, *, mapped: bool = False) -> NDArray[Any]:
    """The array in `file`; raises `ArtifactError` if the file is not an array.

    `mapped`: memory-map the file copy-on-write, so that writes stay in memory.
    """
    try:
        array = mapped_array(file)
    except ValueError as error:
        raise _damaged(file, "not an array", error) from None
    return array if mapped else np.array(array)


def mapped_array(file: Path) -> NDArray[Any]:
    """The array in `file`, memory-mapped copy-on-write; raises `ValueError` if the file is not an array."""
    try:
        # Mapping fails if the header declares more than the file holds; np.load would allocate the memory.
        return np.lib.format.open_memmap(file, mode="c")
    except Exception as error:  # NumPy parses the header as a Python literal, which can raise any error
        raise ValueError(error) from None


def read_weights(file: Path) -> dict[str, Tensor]:
    """Tensors by name from a safetensors file; raises `ArtifactError` if it is not one."""
    try:
        return load_file(file)
    except (SafetensorError, OSError, KeyError) as error:
        raise _damaged(file, "not a safetensors file", error) from None


def _damaged(file: Path, what: str, error: Exception) -> ArtifactError:
    reason = " ".join(str(error).split())[:120]
    return ArtifactError(
        f"{file} is {what} ({reason}); remove the folder {str(file.parent)!r}, and raydc will make it again"
    )
