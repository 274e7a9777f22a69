"""Arrays and weights of artifacts: no pickles, and nothing that declares more than its file holds."""

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
    """The array in `file`; `ArtifactError` if it holds anything else.

    `mapped`: its numbers stay in the file until they are used, and what is written to them stays in memory.
    """
    try:
        array = mapped_array(file)
    except ValueError as error:
        raise _damaged(file, "no array", error) from None
    return array if mapped else np.array(array)


def mapped_array(file: Path) -> NDArray[Any]:
    """The array in `file`, mapped into memory, where what is written stays; `ValueError` if it is none."""
    try:
        # A header that declares more than the file holds cannot be mapped, whereas np.load makes room for it.
        return np.lib.format.open_memmap(file, mode="c")
    except Exception as error:  # NumPy parses a header as Python, with all the errors of that
        raise ValueError(error) from None


def read_weights(file: Path) -> dict[str, Tensor]:
    """Tensors by name from a safetensors file; `ArtifactError` if it is none."""
    try:
        return load_file(file)
    except (SafetensorError, OSError, KeyError) as error:
        raise _damaged(file, "no safetensors", error) from None


def _damaged(file: Path, what: str, error: Exception) -> ArtifactError:
    reason = " ".join(str(error).split())[:120]
    return ArtifactError(
        f"{file} is {what} ({reason}); remove the folder {str(file.parent)!r}, and it is made again"
    )
