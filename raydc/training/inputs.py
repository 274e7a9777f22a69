"""Images of a training or a test pass: resident on the device, or decoded in advance."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raydc.data.dataset import Dataset, Part

Index = Tensor | slice | None
"""Selected images: their numbers [B], a range, or None for all."""


class Inputs(Protocol):
    """N images, converted to network inputs on access."""

    def __len__(self) -> int: ...

    def take(self, index: Index) -> Tensor:
        """Network inputs [B, C, H, W] float32."""

    def each(self, batches: Iterable[Index]) -> Iterator[Tensor]:
        """`take` for each batch; `batches` may be read in advance."""
        return map(self.take, batches)


class TensorInputs(Inputs):
    """Network inputs [N, C, H, W] float32."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def take(self, index: Index) -> Tensor:
        return self.images if index is None else self.images[index]


class PixelInputs(Inputs):
    """uint8 pixels [N, C, H, W], standardised per batch, with a quarter of the memory."""

    def __init__(self, pixels: Tensor, standardise: Callable[[Tensor], Tensor]) -> None:
        self.pixels = pixels
        self.standardise = standardise

    def __len__(self) -> int:
        return len(self.pixels)

    def take(self, index: Index) -> Tensor:
        return self.standardise(self.pixels if index is None else self.pixels[index])


class StreamedInputs(Inputs):
    """A part with encoded images, decoded in advance in the requested order."""

    def __init__(self, part: Part, standardise: Callable[[Tensor], Tensor], device: torch.device) -> None:
        self.part = part
        self.standardise = standardise
        self.device = device

    def __len__(self) -> int:
        return len(self.part)

    def take(self, index: Index) -> Tensor:
        return next(self.each([index]))

    def each(self, batches: Iterable[Index]) -> Iterator[Tensor]:
        for pixels in self.part.each(map(self._rows, batches)):
            yield self.standardise(torch.from_numpy(pixels).to(self.device))

    def _rows(self, index: Index) -> NDArray[np.int64]:
        if isinstance(index, Tensor):
            return index.cpu().numpy()
        every = np.arange(len(self))
        return every if index is None else every[index]


def pixel_inputs(part: Part, standardise: Callable[[Tensor], Tensor], device: torch.device) -> Inputs:
    """A part as inputs on `device`; `standardise` is applied to each batch of pixels [B, C, H, W]."""
    if part.encoded:
        return StreamedInputs(part, standardise, device)
    return PixelInputs(torch.from_numpy(part.images).to(device), standardise)


def part_inputs(dataset: Dataset, part: Part, device: torch.device) -> Inputs:
    """A part as inputs on `device`: standardised per batch, or whitened once."""
    if dataset.whitening is not None:
        return TensorInputs(dataset.inputs(torch.from_numpy(part.images)).to(device))
    return pixel_inputs(part, dataset.inputs, device)


def batches(inputs: Inputs, size: int) -> Iterator[Tensor]:
    """All inputs in order, `size` at a time."""
    return inputs.each(slice(start, start + size) for start in range(0, len(inputs), size))


def spanning(parts: Iterable[Inputs], size: int) -> Iterator[Tensor]:
    """All images of several inputs in order, `size` at a time; a batch may contain images of several inputs.

    The next inputs are requested after the previous ones were released, so only one is in memory at a time.
    """
    held: list[Tensor] = []
    missing = size
    for inputs in parts:
        taken = 0
        while len(inputs) - taken >= missing:
            held.append(inputs.take(slice(taken, taken + missing)))
            taken += missing
            yield torch.cat(held) if len(held) > 1 else held[0]
            held, missing = [], size
        if taken < len(inputs):
            # Copied, since a slice would keep the whole tensor in memory.
            held.append(inputs.take(slice(taken, None)).clone())
            missing -= len(held[-1])
        del inputs
    if held:
        yield torch.cat(held)


def pad(batch: Tensor, size: int) -> Tensor:
    """`batch` [B, ...] padded with zeros to [size, ...], so that all passes have the same shape."""
    missing = max(0, size - len(batch))
    return torch.cat([batch, batch.new_zeros(missing, *batch.shape[1:])]) if missing else batch


def test_batch_size(device: torch.device) -> int:
    """Batch size of forward passes without gradients."""
    return 256 if device.type == "cpu" else 2048
