"""What torch.save wrote, read without executing anything and within the size of the file.

torch.load with weights_only refuses code. It does not refuse a small file that fills the memory: a compressed
archive, a bytearray of a trillion bytes, a tensor of one number with a stride of 0 and a huge shape. Such a
file is refused here, so what is read takes about as much memory as the file has bytes.
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
    """The content of `file`: tensors in dicts, lists and tuples, with plain numbers and texts beside them.

    `mapped`: large tensors stay in the file until they are used. `allowed`: types besides torch's own that
    may stand in it. Raises `ValueError`, with the reason in a few words, for everything else.
    """
    try:
        _check_archive(file)
        with torch.serialization.safe_globals(list(allowed)), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # notes on how the file was pickled
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped or None)
        _check_sizes(content, file.stat().st_size)
    except Exception as error:  # a damaged pickle makes torch's reader raise whatever its parts raise
        raise ValueError(_reason(error)) from None
    return content


def flat(value: Any) -> Any:
    """The value, if it is no list or tuple, or one of numbers; `ValueError` otherwise.

    Lists in lists, and tuples alike, may share parts, and so be huge once an array is made of them.
    """
    if isinstance(value, list | tuple) and not all(isinstance(entry, int | float) for entry in value):
        raise ValueError("it has lists in lists, or other than numbers in a list, where tensors belong")
    return value


def _check_archive(file: Path) -> None:
    """Refuse what takes memory before a tensor is there: compressed entries, and bytes made on demand."""
    with file.open("rb") as opened:
        size = opened.seek(0, 2)
        if not size:
            raise ValueError("it is empty")
        with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if content.find(b"\nbytearray\n") >= 0:
                raise ValueError("it asks for a bytearray, but only tensors in plain containers are read")
    if not zipfile.is_zipfile(file):
        return
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError("its entries are compressed, which torch.save never does")
    if sum(entry.file_size for entry in entries) > size:
        raise ValueError("its entries are larger than the file")


def _check_sizes(content: Any, most_bytes: int) -> None:
    """Refuse tensors that are larger than their bytes, and bytes that do not come from the file."""
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
    left = [content]
    while left:
        value = left.pop()
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, dict | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            left += value.values() if isinstance(value, dict) else value


def _reason(error: Exception) -> str:
    """A few words; torch's own advise to read the file without this protection."""
    text = " ".join(str(error).split())
    if isinstance(error, pickle.UnpicklingError):
        named = re.search(r"GLOBAL ([\w.]+)", text)
        asks = f"it asks for {named[1]}" if named else "it holds something else"
        return f"{asks}, but only tensors in plain containers are read"
    if not isinstance(error, ValueError | RuntimeError | OSError) or isinstance(error, RecursionError):
        return "it is not what torch.save writes"
    return text.partition(". ")[0][:LARGEST_REASON]
