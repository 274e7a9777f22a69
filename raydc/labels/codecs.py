"""How the logits of a label are stored: what is lost, and how many bytes a record takes.

| codec | a record of n values                                     | source |
| ----- | -------------------------------------------------------- | ------ |
| fp32  | 4 n                                                      | |
| fp16  | 2 n                                                      | FKD: VILA-Lab/SRe2L, relabel |
| q8    | n + 4: 8-bit steps between the smallest and the largest  | |
| q4    | n / 2 + 4: 4-bit steps                                   | |

With `store_top_k` only the k largest logits of a record are stored, each with a 16-bit class number;
the others come back as -inf, so that the softmax runs over the kept ones alone (the variant MR-k of
arXiv 2604.18135).

fp16 ends at 65,504, and so do the ranges of q8 and q4. Logits beyond that are refused: cut off, they would
be labels that no teacher gave.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from raydc.errors import EvaluationError
from raydc.spec.facts import NUMBERED_CLASSES

NAMES = ("fp16", "fp32", "q8", "q4")
_BITS = {"fp32": 32, "fp16": 16, "q8": 8, "q4": 4}
_RANGE_BYTES = 4
"""Smallest value and step of a quantised record, fp16 each."""
_CLASS_BYTES = 2
assert NUMBERED_CLASSES == 256**_CLASS_BYTES
MOST = {"fp32": torch.finfo(torch.float32).max} | dict.fromkeys(
    ("fp16", "q8", "q4"), torch.finfo(torch.float16).max
)
"""The largest logit that a codec holds."""


@dataclass(frozen=True)
class Encoded:
    """N records as they are stored."""

    codec: str
    values: Tensor
    """[N, n] fp32 or fp16, or packed steps uint8 [N, n] (q8) or [N, ceil(n / 2)] (q4)."""
    classes: int
    count: int
    """n, values a record."""
    places: Tensor | None = None
    """[N, n] int16, the 16 bits of the class of each value (from 32,768 on a negative number); None where all
    classes are stored in order."""
    ranges: Tensor | None = None
    """[N, 2] fp16, smallest value and step, where values are quantised."""

    @property
    def nbytes(self) -> int:
        """Bytes of all records."""
        parts = (self.values, self.places, self.ranges)
        return sum(part.numel() * part.element_size() for part in parts if part is not None)

    def decode(self) -> Tensor:
        """Logits [N, C] float32; -inf where nothing was stored."""
        values = self._values()
        if self.places is None:
            return values
        full = values.new_full((len(values), self.classes), -torch.inf)
        return full.scatter_(1, self.places.long() & (NUMBERED_CLASSES - 1), values)

    def _values(self) -> Tensor:
        if self.ranges is None:
            return self.values.float()
        steps = self.values
        if self.codec == "q4":
            steps = torch.stack([steps & 15, steps >> 4], 2).flatten(1)[:, : self.count]
        low, step = self.ranges.float().unbind(1)
        return low[:, None] + steps.float() * step[:, None]


def size_of(logits: Tensor) -> float:
    """How far logits are from 0 at most; NaN if one of them is, 0 if there are none."""
    if not logits.numel():
        return 0.0
    low, high = torch.aminmax(logits.detach())
    return float(torch.maximum(-low, high))


def check(codec: str, size: float) -> None:
    """Raise `EvaluationError` unless `codec` holds logits of this size (`size_of`)."""
    if not math.isfinite(size):
        raise EvaluationError(
            f"the logits hold {size}, of which no label can be made; choose another teacher or epoch"
        )
    if size > MOST[codec]:
        raise EvaluationError(
            f"labels.codec is {codec}, which holds at most {MOST[codec]:,.0f}, but the logits reach "
            f"{size:,.0f}; choose fp32"
        )


def encode(logits: Tensor, codec: str, keep: int | None = None) -> Encoded:
    """Logits [N, C] float32 with `codec`, the `keep` largest of each record or all.

    Raises `EvaluationError` for what cannot be stored so.
    """
    check(codec, size_of(logits))
    return _encoded(logits, codec, keep)


def _encoded(logits: Tensor, codec: str, keep: int | None) -> Encoded:
    classes = logits.shape[1]
    values, places = logits, None
    if keep is not None and keep < classes:
        _check_numbers(classes)
        values, order = logits.topk(keep, dim=1)
        places = order.to(torch.int16)
    count = values.shape[1]
    if codec in ("fp32", "fp16"):
        stored = values.half() if codec == "fp16" else values
        return Encoded(codec, stored, classes, count, places)
    steps, ranges = _quantised(values, _BITS[codec])
    if codec == "q4":
        steps = torch.cat([steps, steps.new_zeros(len(steps), count % 2)], 1)
        steps = steps[:, 0::2] | (steps[:, 1::2] << 4)
    return Encoded(codec, steps, classes, count, places, ranges)


def _quantised(values: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """(steps uint8 [N, n], ranges fp16 [N, 2]); steps are counted in the range as it is stored."""
    most = 2**bits - 1
    low = values.amin(1).half()
    step = ((values.amax(1) - low.float()) / most).half()
    width = step.float().clamp_min(1e-12)[:, None]
    steps = ((values - low.float()[:, None]) / width).round().clamp(0, most)
    return steps.to(torch.uint8), torch.stack([low, step], 1)


def _check_numbers(classes: int) -> None:
    if classes > NUMBERED_CLASSES:
        raise EvaluationError(
            f"the labels are of {classes:,} classes, but the class numbers beside the largest of them have "
            f"16 bits, which end at {NUMBERED_CLASSES:,}; leave labels.store_top_k and labels.top_k out"
        )


def round_trip(logits: Tensor, codec: str, store_top_k: int | None = None) -> Tensor:
    """Logits [N, C] float32 as they come back from storage.

    They must have passed `check`: students ask for their labels at every step, where a look at the values
    would make a GPU wait.
    """
    return _encoded(logits, codec, store_top_k).decode()


def record_bytes(codec: str, classes: int, keep: int | None = None) -> int:
    """Bytes of one soft label of `classes` classes, or of its `keep` largest values."""

    def size(count: int) -> int:
        plain = -(-_BITS[codec] * count // 8)
        return plain + _RANGE_BYTES if codec in ("q8", "q4") else plain

    if keep is None or keep >= classes:
        return size(classes)
    _check_numbers(classes)
    return size(keep) + _CLASS_BYTES * keep


def hard_bytes(classes: int) -> int:
    """Bytes of one class number."""
    return 1 if classes <= 256 else 2
