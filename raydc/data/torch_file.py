"""Files of torch.save, read without executing code and within the size of the file.

torch.load with weights_only rejects code. It does not reject a small file that fills the memory: a compressed
archive, a bytearray of a trillion bytes, or a tensor of one number with a stride of 0 and a huge shape. This
module rejects such files, so the content takes about as much memory as the file has bytes.
"""

from __future__ import annotations

import mmap
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

LARGEST_REASON = 160


def read_tensors(file: Path, *, mapped: bool = False, allowed: Sequence[Any] = ()) -> Any:
    """The content of `file`: tensors, numbers and strings in dicts, lists and tuples.

    `mapped`: memory-map the tensors. `allowed`: types that are allowed in addition to torch's own. Raises
    `ValueError` with a short reason for any other content.
    """
    try:
        _check_archive(file)
        with torch.serialization.safe_globals(list(allowed)), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # notes on how the file was pickled
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped or None)
        _check_sizes(content, file.stat().st_size)
    except Exception as error:  # for a damaged pickle, torch raises errors of many kinds
        raise ValueError(_reason(error)) from None
    return content


def flat(value: Any) -> Any:
    """`value` itself; raises `ValueError` for a list or tuple that contains anything but numbers.

    Nested lists and tuples may share parts, and so become huge when they are converted to an array.
    """
    if isinstance(value, list | tuple) and not all(isinstance(entry, int | float) for entry in value):
        raise ValueError("it has nested lists, or lists of other values than numbers, instead of tensors")
    return value


def _check_archive(file: Path) -> None:
    """Raise `ValueError` for compressed entries and bytearrays, which take memory before tensors are read."""
    with file.open("rb") as opened:
        size = opened.seek(0, 2)
        if not size:
            raise ValueError("it is empty")
        with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if content.find(b"\nbytearray\n") >= 0:
                raise ValueError("it contains a bytearray, but only tensors in plain containers are read")
    if not zipfile.is_zipfile(file):
        return
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError("its entries are compressed, unlike those of torch.save")
    if sum(entry.file_size for entry in entries) > size:
        raise ValueError("its entries are larger than the file")


def _check_sizes(content: Any, most_bytes: int) -> None:
    """Raise `ValueError` for tensors that are larger than their storage or than the file."""
    storages: dict[int, int] = {}
    for tensor in _tensors(content):
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            raise ValueError("it has a tensor that is sparse, quantised or empty; save plain ones")
        storage = tensor.untyped_storage()
        if tensor.numel() * tensor.element_size() > storage.nbytes():
            raise ValueError(f"a tensor of shape {list(tensor.shape)} has only {storage.nbytes():,} bytes")
        storages[storage.data_ptr()] = storage.nbytes()
    if sum(storages.values()) > most_bytes:
        raise ValueError("its tensors are larger than the file")


def _tensors(content: Any) -> Iterator[Tensor]:
    """Every tensor in nested containers, each container once."""
    seen: set[int] = set()
    remaining = [content]
    while remaining:
        value = remaining.pop()
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, dict | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            remaining += value.values() if isinstance(value, dict) else value


def _reason(error: Exception) -> str:
    """A short reason; torch's own message suggests to disable weights_only."""
    text = " ".join(str(error).split())
    if isinstance(error, pickle.UnpicklingError):
        named = re.search(r"GLOBAL ([\w.]+)", text)
        content = f"it contains {named[1]}" if named else "it contains other objects"
        return f"{content}, but only tensors in plain containers are read"
    if not isinstance(error, ValueError | RuntimeError | OSError) or isinstance(error, RecursionError):
        return "it is not a file of torch.save"
    return text.partition(". ")[0][:LARGEST_REASON]
