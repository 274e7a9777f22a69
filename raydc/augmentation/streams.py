"""Streams of views: the order of the images and the parameters of the augmentations for each step.

All random numbers are counter-based, with one stream per purpose. They are the same on every device; a golden
file tests them.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from raydc.augmentation.philox import permutations, uniforms
from raydc.augmentation.rendering import policy_of
from raydc.spec.evaluation import Recipe
from raydc.spec.training_entries import Augmentation

STREAMS = {
    name: number
    for number, name in enumerate(
        (
            "order",
            "dsa choice",
            "dsa",
            "crop",
            "rrc",
            "flip",
            "cutout",
            "mix",
            "partner",
            "pool",
            "tile",
            "tile choice",
            "patch rows",
            "patch columns",
        )
    )
}
FIRST_OF_PLUGINS = 1 << 30
"""First number of streams of plugins, which are numbered by a hash of their names."""
CHUNK = 64
"""Number of steps whose parameters are drawn together."""


@dataclass(frozen=True)
class Drawn:
    """Parameters of L steps of V streams of views, drawn together."""

    numbers: list[list[int]]
    """[V][L], number of the view that each step uses."""
    counts: list[int]
    """[L], number of images of each step, equal for all streams."""
    index: Tensor | None
    """[V, L, B], the images of each batch; None for the whole set in order."""
    draws: dict[str, Tensor]
    """Uniform numbers [V, L, B, 4] by stream of random numbers."""
    choices: dict[str, list[list[str]]]
    """Choices of the batches [V][L] by augmentation."""
    mixes: list[list[str]] | None
    """[V][L], the augmentation that mixes the images of each batch."""
    partner: Tensor | None
    """[V, L, B], positions of partners; positions inside the batch come first."""
    share: Tensor | None
    """[V, L], share of the image itself in the mix."""


class Streams:
    """V streams of views, with equal augmentations and sets of equal size."""

    def __init__(
        self, recipe: Recipe, images: int, keys: Sequence[int], device: torch.device, pool: int | None
    ) -> None:
        self.recipe = recipe
        self.images = images
        self.batch_size = min(recipe.batch_size, images)
        self.per_epoch = recipe.steps_per_epoch(images)
        self.device = device
        self.pool = pool
        self._cpu_keys = torch.tensor(list(keys), dtype=torch.int64).view(-1, 1, 1)
        self._keys = self._cpu_keys.to(device)
        self._singles, self._mixes = policy_of(recipe)
        self._names = [stream for entry in self._singles for stream in entry.drawn]

    def draw(self, first: int, last: int) -> Drawn:
        """Parameters of the steps first..last-1."""
        view_numbers = self._view_numbers(first, last)
        size = self.batch_size
        cpu_epochs, cpu_batches = view_numbers // self.per_epoch, view_numbers % self.per_epoch
        epochs, batches = cpu_epochs.to(self.device), cpu_batches.to(self.device)
        draws = {name: uniforms(self._keys, number_of(name), epochs, batches, size) for name in self._names}
        counts = [min(size, self.images - batch * size) for batch in cpu_batches[0].tolist()]
        choices = {
            entry.name: self._choices(entry, cpu_epochs, cpu_batches)
            for entry in self._singles
            if entry.choices
        }
        mixes = partner = share = None
        if self._mixes:
            mixes, shares, centres = self._mix_parameters(cpu_epochs, cpu_batches)
            draws["mix"] = centres.expand(-1, -1, size, -1).to(self.device)
            share = shares.to(self.device)
            partner = permutations(self._keys, STREAMS["partner"], epochs, batches, size)
            if min(counts) < size:
                inside = torch.tensor(counts, device=self.device)[:, None]
                partner = partner.gather(2, (partner >= inside).int().argsort(dim=2, stable=True))
        index = self._index(cpu_epochs, batches)
        return Drawn(view_numbers.tolist(), counts, index, draws, choices, mixes, partner, share)

    def _view_numbers(self, first: int, last: int) -> Tensor:
        """Number of the view of each of the steps first..last-1: [V, last - first], on the CPU.

        With a pool, a step reuses a view with the same batch number, so that every epoch contains every
        image and the batch size of a step does not depend on the key.
        """
        streams = len(self._cpu_keys)
        if self.pool is None or last <= self.pool:
            return torch.arange(first, last).expand(streams, -1)
        per_epoch = min(self.per_epoch, self.pool)
        orders: dict[tuple[int, int], Tensor] = {}
        chosen = []
        for step in range(first, last):
            batch, turn = step % per_epoch, step // per_epoch
            # Number of views with this batch number: one more if it is in the pool's last, incomplete epoch.
            count = (self.pool - batch + per_epoch - 1) // per_epoch
            round_, place = divmod(turn, count)
            if round_ == 0:
                chosen.append(torch.full((streams,), step))
                continue
            if (round_, batch) not in orders:
                numbers = torch.tensor([round_]), torch.tensor([batch])
                orders[round_, batch] = permutations(self._cpu_keys, STREAMS["pool"], *numbers, count)[:, 0]
            chosen.append(orders[round_, batch][:, place] * per_epoch + batch)
        return torch.stack(chosen, 1)

    def _index(self, epochs: Tensor, batches: Tensor) -> Tensor | None:
        """Images of each batch [V, L, B]; None if one batch contains all images."""
        if self.per_epoch == 1:
            return None
        numbers = sorted(set(epochs.flatten().tolist()))
        where = torch.searchsorted(torch.tensor(numbers), epochs.contiguous()).to(self.device)
        distinct = torch.tensor(numbers, device=self.device)
        orders = permutations(self._keys, STREAMS["order"], distinct, torch.zeros_like(distinct), self.images)
        place = torch.arange(self.batch_size, device=self.device)
        # The last batch may be smaller; positions beyond it are removed by its count.
        position = (batches[..., None] * self.batch_size + place).clamp_max(self.images - 1)
        stream = torch.arange(len(orders), device=self.device)[:, None, None]
        return orders[stream, where[..., None], position]

    def _choices(self, entry: Augmentation, epochs: Tensor, batches: Tensor) -> list[list[str]]:
        """The choice of each batch [V][L]."""
        u = uniforms(self._cpu_keys, number_of(f"{entry.name} choice"), epochs, batches, 1)[..., 0, 0]
        names = entry.choices
        return [[names[int(number * len(names))] for number in row] for row in u.tolist()]

    def _mix_parameters(self, epochs: Tensor, batches: Tensor) -> tuple[list[list[str]], Tensor, Tensor]:
        """(name of the mix [V][L], share of the image itself [V, L], centre of the box [V, L, 1, 2])."""
        u = uniforms(self._cpu_keys, STREAMS["mix"], epochs, batches, 1)[..., 0, :]
        alphas = {entry.name: self._alpha(entry) for entry in self._mixes}
        mixes = list(alphas)
        names, shares = [], []
        for row in u.tolist():
            chosen = [mixes[int(numbers[0] * len(mixes))] for numbers in row]
            names.append(chosen)
            shares.append(
                [
                    float(np.interp(numbers[1], *beta_quantiles(alphas[name])))
                    for name, numbers in zip(chosen, row, strict=True)
                ]
            )
        return names, torch.tensor(shares, dtype=torch.float32), u[:, :, None, 2:]

    def _alpha(self, entry: Augmentation) -> float:
        """Alpha of the Beta(alpha, alpha) that the shares of a mix are drawn from."""
        (value,) = self.recipe.arguments([key for key in entry.keys if key.name == entry.alpha]).values()
        return float(value)


def number_of(stream: str) -> int:
    """The number of a stream of random numbers, below 2**31."""
    if stream in STREAMS:
        return STREAMS[stream]
    return FIRST_OF_PLUGINS | zlib.crc32(stream.encode()) >> 2


@lru_cache(maxsize=16)
def beta_quantiles(alpha: float, points: int = 65537) -> tuple[np.ndarray, np.ndarray]:
    """(probabilities, quantiles) of Beta(alpha, alpha), for interpolation.

    With x = sin^2(t) the density is (sin t cos t)^(2 alpha - 1), which is integrated at
    the middle of each interval, so that the density is finite for alpha < 1/2.
    """
    t = np.linspace(0, np.pi / 2, points)
    middle = (t[1:] + t[:-1]) / 2
    mass = (np.sin(middle) * np.cos(middle)) ** (2 * alpha - 1)
    probability = np.concatenate([[0], np.cumsum(mass)])
    return probability / probability[-1], np.sin(t) ** 2
