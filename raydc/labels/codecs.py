"""Codecs: how the logits of a label are stored, with what precision and in how many bytes.

| codec | a record of n values                                     | source |
| ----- | -------------------------------------------------------- | ------ |
| fp32  | 4 n                                                      | |
| fp16  | 2 n                                                      | FKD: VILA-Lab/SRe2L, relabel |
| q8    | n + 4: 8-bit steps between the smallest and the largest  | |
| q4    | n / 2 + 4: 4-bit steps                                   | |

With `store_top_k` only the k largest logits of a record are stored, each with a 16-bit class number;
the others are decoded as -inf, so that the softmax runs over the stored ones only (the variant MR-k of
arXiv 2604.18135).

The largest value of fp16, and of the ranges of q8 and q4, is 65,504. Larger logits are refused, because
clipping them would change the teacher's labels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import torch
from torch import Tensor

from raydc.errors import EvaluationError
from raydc.spec import catalog
from raydc.spec.facts import NUMBERED_CLASSES

_CLASS_BYTES = 2
assert NUMBERED_CLASSES == 256**_CLASS_BYTES


class Codec(Protocol):
    """A way to store records of n values; the target of a catalogue entry creates one without arguments."""

    largest: float
    """The largest absolute value that it can store."""

    def encode(self, values: Tensor) -> tuple[Tensor, ...]:
        """Encode values [N, n] float32; returns tensors whose first dimension is N."""

    def decode(self, parts: tuple[Tensor, ...], count: int) -> Tensor:
        """Decode what `encode` returned to [N, n] float32; n is `count`."""

    def record_bytes(self, count: int) -> int:
        """Bytes of a record of `count` values, over all of its tensors."""


class Float32:
    """fp32: single precision, lossless."""

    largest = torch.finfo(torch.float32).max

    def encode(self, values: Tensor) -> tuple[Tensor, ...]:
        return (values,)

    def decode(self, parts: tuple[Tensor, ...], count: int) -> Tensor:
        del count
        return parts[0]

    def record_bytes(self, count: int) -> int:
        return 4 * count


class Float16:
    """fp16: half precision."""

    largest = torch.finfo(torch.float16).max

    def encode(self, values: Tensor) -> tuple[Tensor, ...]:
        return (values.half(),)

    def decode(self, parts: tuple[Tensor, ...], count: int) -> Tensor:
        del count
        return parts[0].float()

    def record_bytes(self, count: int) -> int:
        return 2 * count


class Quantised8:
    """q8: steps uint8 [N, n] between the smallest and the largest value of a record; ranges fp16 [N, 2]."""

    bits = 8
    largest = torch.finfo(torch.float16).max

    def encode(self, values: Tensor) -> tuple[Tensor, ...]:
        most = 2**self.bits - 1
        low = values.amin(1).half()
        step = ((values.amax(1) - low.float()) / most).half()
        # Steps are computed from the range as it is stored.
        width = step.float().clamp_min(1e-12)[:, None]
        steps = ((values - low.float()[:, None]) / width).round().clamp(0, most).to(torch.uint8)
        return self._packed(steps), torch.stack([low, step], 1)

    def decode(self, parts: tuple[Tensor, ...], count: int) -> Tensor:
        packed, ranges = parts
        low, step = ranges.float().unbind(1)
        return low[:, None] + self._unpacked(packed, count).float() * step[:, None]

    def record_bytes(self, count: int) -> int:
        return -(-self.bits * count // 8) + 4

    def _packed(self, steps: Tensor) -> Tensor:
        return steps

    def _unpacked(self, packed: Tensor, count: int) -> Tensor:
        del count
        return packed


class Quantised4(Quantised8):
    """q4: as q8 with 4-bit steps, two in a byte."""

    bits = 4

    def _packed(self, steps: Tensor) -> Tensor:
        even = torch.cat([steps, steps.new_zeros(len(steps), steps.shape[1] % 2)], 1)
        return even[:, 0::2] | (even[:, 1::2] << 4)

    def _unpacked(self, packed: Tensor, count: int) -> Tensor:
        return torch.stack([packed & 15, packed >> 4], 2).flatten(1)[:, :count]


@cache
def codec_of(name: str) -> Codec:
    """The codec of a catalogue entry."""
    made: Codec = catalog.CODECS[name].load()()
    return made


@dataclass(frozen=True)
class Encoded:
    """N encoded records."""

    codec: str
    parts: tuple[Tensor, ...]
    """What the codec's `encode` returned."""
    classes: int
    count: int
    """n, values per record."""
    places: Tensor | None = None
    """[N, n] int16, the class of each value as 16 bits (classes from 32,768 are negative); None if all
    classes are stored in order."""

    @property
    def nbytes(self) -> int:
        """Bytes of all records."""
        places = () if self.places is None else (self.places,)
        return sum(part.numel() * part.element_size() for part in (*self.parts, *places))

    def decode(self) -> Tensor:
        """Logits [N, C] float32; -inf for values that were not stored."""
        values = codec_of(self.codec).decode(self.parts, self.count)
        if self.places is None:
            return values
        full = values.new_full((len(values), self.classes), -torch.inf)
        return full.scatter_(1, self.places.long() & (NUMBERED_CLASSES - 1), values)


def size_of(logits: Tensor) -> float:
    """Largest absolute value of logits; NaN if any is NaN, 0 if there are none."""
    if not logits.numel():
        return 0.0
    low, high = torch.aminmax(logits.detach())
    return float(torch.maximum(-low, high))


def check(codec: str, size: float) -> None:
    """Raise `EvaluationError` unless `codec` can store logits of this size (`size_of`)."""
    if not math.isfinite(size):
        raise EvaluationError(
            f"the logits contain {size} and cannot be labels; choose another teacher or epoch"
        )
    if size > (largest := codec_of(codec).largest):
        raise EvaluationError(
            f"labels.codec is {codec}, which stores at most {largest:,.0f}, but the logits reach "
            f"{size:,.0f}; choose fp32"
        )


def encode(logits: Tensor, codec: str, keep: int | None = None) -> Encoded:
    """Encode logits [N, C] float32 with `codec`: the `keep` largest of each record, or all.

    Raises `EvaluationError` for logits that the codec cannot store.
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
    return Encoded(codec, codec_of(codec).encode(values), classes, values.shape[1], places)


def _check_numbers(classes: int) -> None:
    if classes > NUMBERED_CLASSES:
        raise EvaluationError(
            f"the labels have {classes:,} classes, but the 16-bit class numbers of top-k labels allow "
            f"at most {NUMBERED_CLASSES:,}; remove labels.store_top_k and labels.top_k"
        )


def round_trip(logits: Tensor, codec: str, store_top_k: int | None = None) -> Tensor:
    """Logits [N, C] float32 after encoding and decoding.

    They must have passed `check`: students request their labels at every step, where reading the values would
    make the GPU wait.
    """
    return _encoded(logits, codec, store_top_k).decode()


def record_bytes(codec: str, classes: int, keep: int | None = None) -> int:
    """Bytes of one soft label of `classes` classes, or of its `keep` largest values."""
    if keep is None or keep >= classes:
        return codec_of(codec).record_bytes(classes)
    _check_numbers(classes)
    return codec_of(codec).record_bytes(keep) + _CLASS_BYTES * keep


def hard_bytes(classes: int) -> int:
    """Bytes of one class number."""
    return 1 if classes <= 256 else 2
