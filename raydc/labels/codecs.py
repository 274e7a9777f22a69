"""How the logits of a label are stored: what is lost, and how many bytes a record takes."""

from __future__ import annotations

from torch import Tensor


def round_trip(logits: Tensor, codec: str) -> Tensor:
    """Logits [N, C] float32 as they come back from storage with `codec`."""
    if codec == "fp32":
        return logits
    assert codec == "fp16", codec
    return logits.half().float()


def record_bytes(codec: str, classes: int, top_k: int | None = None) -> int:
    """Bytes of one soft label: all classes, or k pairs of a value and a 16-bit class number."""
    value = {"fp16": 2, "fp32": 4}[codec]
    dense = value * classes
    return dense if top_k is None else min(dense, (value + 2) * top_k)


def hard_bytes(classes: int) -> int:
    """Bytes of one class number."""
    return 1 if classes <= 256 else 2
