"""A frozen network that outputs logits and features."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from raydc.networks.zoo import forward_with_features
from raydc.training.inputs import Inputs, batches, pad, spanning
from raydc.training.optimizer import tensor_cores

FORWARD_BATCH = {"cpu": 64, "cuda": 256}
"""Images per forward pass. Batches are always padded to this size, because the last bits of a logit depend on
the batch size: so the logits of an image do not depend on the other images of a request."""


class Teacher:
    """A network in eval mode on its device; `logits` is a pure function of the images."""

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self.network = network.to(device).eval().requires_grad_(False)
        self.device = device
        self.batch = FORWARD_BATCH.get(device.type, 64)
        self.images_forwarded = 0
        """Number of images forwarded so far, without padding."""

    def logits(self, inputs: Inputs) -> Tensor:
        """Logits [N, C] float32 on the CPU."""
        return self._forward(inputs, features=False)[0]

    def features(self, inputs: Inputs) -> Tensor:
        """Penultimate features [N, D] float32 on the CPU."""
        return self._forward(inputs, features=True)[1]

    def in_turn(self, parts: Iterable[Inputs], counts: Iterable[int]) -> Iterator[tuple[Tensor, float]]:
        """For each n in `counts`, yield the logits [n, C] of the next n images and the seconds that they
        took.

        Batches span the inputs of `parts`, of which one at a time is in memory, and the yielded groups. The
        time that the caller takes between two groups is not counted.
        """
        batches = self._paced(parts)
        left, pace = torch.empty(0), 0.0
        for count in counts:
            chunks: list[Tensor] = []
            seconds = 0.0
            while count:
                if not len(left):
                    left, pace = next(batches)
                chunks.append(left[:count])
                left = left[count:]
                count -= len(chunks[-1])
                seconds += pace * len(chunks[-1])
            logits = torch.cat(chunks)
            chunks.clear()
            yield logits, seconds

    def _paced(self, parts: Iterable[Inputs]) -> Iterator[tuple[Tensor, float]]:
        """Yield the logits [B, C] of each batch, on the CPU, and its seconds per image."""
        start = time.perf_counter()
        for taken in spanning(parts, self.batch):
            with torch.inference_mode(), tensor_cores("fp32"):
                outputs = self.network(pad(taken.to(self.device), self.batch))
                logits = outputs[: len(taken)].float().cpu()
            self.images_forwarded += len(taken)
            yield logits, (time.perf_counter() - start) / len(taken)
            start = time.perf_counter()

    def _forward(self, inputs: Inputs, features: bool) -> tuple[Tensor, Tensor]:
        logits, penultimate = [], []
        with torch.inference_mode(), tensor_cores("fp32"):
            for taken in batches(inputs, self.batch):
                count = len(taken)
                batch = pad(taken.to(self.device), self.batch)
                if features:
                    outputs, seen = forward_with_features(self.network, batch)
                    penultimate.append(seen[:count].float().cpu())
                else:
                    outputs = self.network(batch)
                logits.append(outputs[:count].float().cpu())
        self.images_forwarded += len(inputs)
        return torch.cat(logits), torch.cat(penultimate) if features else torch.empty(0)
