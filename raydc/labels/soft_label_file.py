"""Third-party soft labels of a compressed set, read from a file.

    labels.pt, labels_best.pt    a tensor [N, C], or a dict with one as `labels`, `label` or `soft_labels`
    labels.npy                   an array [N, C]

Row n is the label of image n of the set, which is ordered class by class. Files are read without executing
code.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from raydc.data.array_file import mapped_array
from raydc.data.torch_file import flat, read_tensors
from raydc.errors import InputError

LARGEST = torch.finfo(torch.float16).max
"""Largest value of a label, because labels are stored as fp16."""
NAMES = ("labels", "label", "soft_labels")
"""Keys of a dict that may hold labels, in order of preference."""


def read_soft_labels(path: str, images: int, classes: int) -> Tensor:
    """Probabilities [images, classes] float32 of the file `path`; rows need not sum to one.

    `InputError` if the file does not exist or contains anything else.
    """
    file, where = Path(path), f"labels.path is {path!r}"
    if file.is_dir():
        raise InputError(
            f"{where}, a folder, but labels.kind stored reads a file; an FKD folder needs kind fkd"
        )
    if not file.is_file():
        raise InputError(f"{where}, which does not exist")
    if file.suffix.lower() not in (".pt", ".pth", ".npy"):
        raise InputError(f"{where}, but must be a .pt, .pth or .npy file")
    try:
        labels = torch.as_tensor(flat(_content(file)))
    except (ValueError, TypeError, RuntimeError) as error:
        raise InputError(f"{where}, which contains no labels ({_reason(error)})") from None
    if labels.shape != (images, classes) or labels.is_complex():
        raise InputError(
            f"{where}, whose labels have the shape {list(labels.shape)}, but the set has {images} images and "
            f"the data {classes} classes; there must be {images} x {classes} probabilities"
        )
    labels = labels.detach().float()
    if not bool(((labels >= 0) & (labels <= LARGEST)).all()):
        raise InputError(
            f"{where}, whose labels are not all finite and from 0 to {LARGEST:,.0f}; store probabilities, "
            "not logits"
        )
    return labels


def _content(file: Path) -> Any:
    if file.suffix.lower() == ".npy":
        return mapped_array(file)
    content = read_tensors(file)
    if isinstance(content, dict):
        named = [content[name] for name in NAMES if name in content]
        if not named:
            raise ValueError(f"it has none of {', '.join(NAMES)}")
        return named[0]
    return content


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
