"""A codec: logits rounded to whole numbers, one byte each."""

import torch
from torch import Tensor

from raydc.spec.catalog import CODECS, Codec


class Rounded:
    largest = 127.0

    def encode(self, values: Tensor) -> tuple[Tensor, ...]:
        return (values.round().to(torch.int8),)

    def decode(self, parts: tuple[Tensor, ...], count: int) -> Tensor:
        return parts[0].float()

    def record_bytes(self, count: int) -> int:
        return count


CODECS.add(Codec("rounded", Rounded, "whole numbers, 1 byte a value"))
