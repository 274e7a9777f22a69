"""Where a training or a test pass takes its images from, resident on its device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor


class Inputs(Protocol):
    """N images that become network inputs when they are taken."""

    def __len__(self) -> int: ...

    def take(self, index: Tensor | slice | None) -> Tensor:
        """Network inputs [B, C, H, W] float32; None takes all."""


class TensorInputs:
    """Inputs that are ready: [N, C, H, W] float32."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def take(self, index: Tensor | slice | None) -> Tensor:
        return self.images if index is None else self.images[index]


class PixelInputs:
    """uint8 pixels [N, C, H, W] that are standardised batch by batch, at a quarter of the memory."""

    def __init__(self, pixels: Tensor, standardise: Callable[[Tensor], Tensor]) -> None:
        self.pixels = pixels
        self.standardise = standardise

    def __len__(self) -> int:
        return len(self.pixels)

    def take(self, index: Tensor | slice | None) -> Tensor:
        return self.standardise(self.pixels if index is None else self.pixels[index])


def batches(inputs: Inputs, size: int) -> Iterator[Tensor]:
    """All inputs in order, `size` at a time."""
    for start in range(0, len(inputs), size):
        yield inputs.take(slice(start, start + size))


def pad(batch: Tensor, size: int) -> Tensor:
    """`batch` [B, ...] filled up with zeros to [size, ...], so that every pass has one shape."""
    missing = max(0, size - len(batch))
    return torch.cat([batch, batch.new_zeros(missing, *batch.shape[1:])]) if missing else batch


def test_batch_size(device: torch.device) -> int:
    """Images a forward pass without gradients takes at a time."""
    return 256 if device.type == "cpu" else 2048
