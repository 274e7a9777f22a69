"""Views of a set: the order of its images and the parameters of its augmentations.

A view is a pure function of (set, policy, batch size, view seed, epoch, batch). All randomness comes
from counters, one stream a purpose, computed alike on every device and pinned by a golden file;
pixels agree between devices to 1/255.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from raydc.augmentation import operations
from raydc.augmentation.philox import permutations, uniforms
from raydc.spec.evaluation import Recipe

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
        )
    )
}
CHUNK = 64
"""Steps whose parameters are drawn together."""


@dataclass(frozen=True)
class View:
    """What a student sees in one step."""

    images: Tensor
    """[B, C, H, W], augmented."""
    index: Tensor | None
    """[B] int64, which images of the set; None for all in their own order."""
    partner: Tensor | None = None
    """[B] int64, the position in the batch that each image is mixed with, if any."""
    share: Tensor | None = None
    """[B], the part of each image itself in the mix."""

    def mix(self, targets: Tensor) -> Tensor:
        """Rows of `targets` [N, ...] for this view, mixed as the images are."""
        chosen = targets if self.index is None else targets[self.index]
        if self.partner is None or self.share is None:
            return chosen
        share = self.share[:, None]
        return chosen * share + chosen[self.partner] * (1 - share)


@dataclass(frozen=True)
class Step:
    """Parameters of one step's view."""

    epoch: int
    """Complete epochs before this step."""
    batch: int
    """Batch of the epoch."""
    index: Tensor | None
    """[B], images of the batch; None for the whole set in its own order."""
    draws: dict[str, Tensor]
    """[B, 4] uniform numbers by stream."""
    dsa_operation: str | None
    mix: str | None
    """mixup, cutmix or None."""
    partner: Tensor | None
    share: Tensor | None
    grid: tuple[int, int] = (1, 1)
    """Rows and columns of tiles in the images."""


class Views:
    """The views of one training of `images` images, step by step; `key` is below 2**63.

    With a `pool` of P, steps from P on meet the first P views again, in a new random order each
    round (label pruning at batch granularity: arXiv 2410.15919, 2604.18135). `grid` says how the images
    are tiled, for `tile_crop`.
    """

    def __init__(
        self,
        recipe: Recipe,
        images: int,
        key: int,
        device: torch.device,
        pool: int | None = None,
        grid: tuple[int, int] = (1, 1),
    ) -> None:
        self.recipe = recipe
        self.images = images
        self.batch_size = min(recipe.batch_size, images)
        self.per_epoch = recipe.steps_per_epoch(images)
        self.device = device
        self.pool = pool
        self.grid = grid
        self._key = key
        self._streams: list[str] = [
            name for name in ("crop", "rrc", "flip", "cutout") if name in recipe.augment
        ]
        self._mixes: list[str] = [name for name in ("mixup", "cutmix") if name in recipe.augment]

    def steps(self, start: int, stop: int) -> Iterator[Step]:
        """Parameters of the steps start..stop-1, drawn a chunk at a time."""
        for first in range(start, stop, CHUNK):
            yield from self._chunk(first, min(first + CHUNK, stop))

    def _chunk(self, first: int, last: int) -> Iterator[Step]:
        steps = self._met(first, last)
        numbers = steps.tolist()
        epochs, batches = steps // self.per_epoch, steps % self.per_epoch
        size = self.batch_size
        draws = {name: uniforms(self._key, STREAMS[name], epochs, batches, size) for name in self._streams}
        choices: list[str] | None = None
        if "dsa" in self.recipe.augment:
            draws["dsa"] = uniforms(self._key, STREAMS["dsa"], epochs, batches, size)
            choices = self._dsa_choices(epochs.cpu(), batches.cpu())
        if "tile_crop" in self.recipe.augment:
            for name in ("tile", "tile choice"):
                draws[name] = uniforms(self._key, STREAMS[name], epochs, batches, size)
        mixes, shares, centres = self._mix_parameters(epochs.cpu(), batches.cpu())
        shares = shares.to(self.device)
        partners = permutations(self._key, STREAMS["partner"], epochs, batches, size) if mixes else None
        if mixes:
            draws["mix"] = centres.expand(-1, size, -1).to(self.device)
        orders = self._orders(numbers)
        for i, step in enumerate(numbers):
            epoch, batch = divmod(step, self.per_epoch)
            index = None
            if orders is not None:
                index = orders[epoch][batch * size : (batch + 1) * size]
            count = size if index is None else len(index)
            partner = partners[i] if partners is not None else None
            if partner is not None and count < size:
                partner = partner[partner < count]
            yield Step(
                epoch=epoch,
                batch=batch,
                index=index,
                draws={name: drawn[i, :count] for name, drawn in draws.items()},
                dsa_operation=choices[i] if choices is not None else None,
                mix=mixes[i] if mixes else None,
                partner=partner,
                share=shares[i] if mixes else None,
                grid=self.grid,
            )

    def _met(self, first: int, last: int) -> Tensor:
        """Number of the view that each of the steps first..last-1 meets: [last - first] int64.

        The views of one batch number take turns among themselves, so that every epoch meets every
        image, and a step's batch has one size whatever the key.
        """
        steps = torch.arange(first, last, device=self.device)
        if self.pool is None or last <= self.pool:
            return steps
        per_epoch = min(self.per_epoch, self.pool)
        batch, turn = steps % per_epoch, steps // per_epoch
        met = torch.empty_like(steps)
        # Views of a batch number: one more for those in the pool's last, incomplete epoch.
        counts = (self.pool - batch + per_epoch - 1) // per_epoch
        for count in sorted({self.pool // per_epoch, -(-self.pool // per_epoch)} - {0}):
            round_, place = turn // count, turn % count
            orders = permutations(self._key, STREAMS["pool"], round_, batch, count)
            epoch = orders.gather(1, place[:, None])[:, 0]
            epoch = torch.where(round_ == 0, place, epoch)
            met = torch.where(counts == count, epoch * per_epoch + batch, met)
        return met

    def _orders(self, steps: list[int]) -> dict[int, Tensor] | None:
        """The order of the images in each epoch; None where one batch holds them all."""
        if self.per_epoch == 1:
            return None
        epochs = sorted({step // self.per_epoch for step in steps})
        numbers = torch.tensor(epochs, device=self.device)
        orders = permutations(self._key, STREAMS["order"], numbers, torch.zeros_like(numbers), self.images)
        return dict(zip(epochs, orders, strict=True))

    def _dsa_choices(self, epochs: Tensor, batches: Tensor) -> list[str]:
        u = uniforms(self._key, STREAMS["dsa choice"], epochs, batches, 1)[:, 0, 0]
        names = operations.DSA_OPERATIONS
        return [names[int(number * len(names))] for number in u.tolist()]

    def _mix_parameters(self, epochs: Tensor, batches: Tensor) -> tuple[list[str], Tensor, Tensor]:
        """(which mix, share of the image itself, centre of the box) of each step, on the CPU."""
        if not self._mixes:
            return [], torch.empty(0), torch.empty(0)
        u = uniforms(self._key, STREAMS["mix"], epochs, batches, 1)[:, 0]
        names = [self._mixes[int(number * len(self._mixes))] for number in u[:, 0].tolist()]
        alphas = {"mixup": self.recipe.mixup_alpha, "cutmix": self.recipe.cutmix_alpha}
        shares = [
            np.interp(number, *_beta_quantiles(alphas[name]))
            for name, number in zip(names, u[:, 1].tolist(), strict=True)
        ]
        return names, torch.tensor(shares, dtype=torch.float32), u[:, None, 2:]

    def render(self, images: Tensor, step: Step) -> View:
        """The view of `step`; images: [N, C, H, W], the whole set."""
        return self.render_batch(images if step.index is None else images[step.index], step)

    def render_batch(self, images: Tensor, step: Step) -> View:
        """As `render`, for a batch [B, C, H, W] that was gathered by `step.index`."""
        return render_together(self.recipe, [images], [step])[0]


def render_together(recipe: Recipe, batches: Sequence[Tensor], steps: Sequence[Step]) -> list[View]:
    """The views of several steps, of one training or of many with equal augmentations.

    batches: [B, C, H, W] each, gathered by its step's index. Each operation runs once over all images
    that it applies to, so that many small batches cost as little as one large one.
    """
    sizes = [len(batch) for batch in batches]
    images = _joined(batches)
    strength = recipe.augment_strength
    draws = {name: _joined([step.draws[name] for step in steps]) for name in steps[0].draws}
    if "dsa" in draws:
        images = _dsa(images, draws["dsa"], [step.dsa_operation for step in steps], sizes, strength)
    if "crop" in draws:
        images = operations.crop(images, draws["crop"], strength)
    if "rrc" in draws:
        images = operations.rrc(images, draws["rrc"], recipe.crop_scale)
    if "tile" in draws:
        grids = torch.tensor([step.grid for step in steps]).repeat_interleave(torch.tensor(sizes), 0)
        images = operations.tile_crop(
            images, draws["tile"], draws["tile choice"], grids.to(images.device), recipe.crop_scale
        )
    if "flip" in draws:
        images = operations.flip(images, draws["flip"])
    if "cutout" in draws:
        images = operations.cutout(images, draws["cutout"], strength)
    shares: Sequence[Tensor | None] = [None] * len(steps)
    if "mix" in draws:
        images, shares = _mix(images, draws["mix"], steps, sizes)
    return [
        View(part, step.index, step.partner, share)
        for part, step, share in zip(images.split(sizes), steps, shares, strict=True)
    ]


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def _dsa(
    images: Tensor, u: Tensor, chosen: Sequence[str | None], sizes: Sequence[int], strength: float
) -> Tensor:
    """Each batch by its own operation, each operation once."""
    names = sorted({name for name in chosen if name is not None})
    if len(names) == 1:
        return operations.dsa(images, u, names[0], strength)
    changed = torch.empty_like(images)
    for name in names:
        rows = _rows([other == name for other in chosen], sizes).to(images.device)
        changed[rows] = operations.dsa(images[rows], u[rows], name, strength)
    return changed


def _mix(
    images: Tensor, u: Tensor, steps: Sequence[Step], sizes: Sequence[int]
) -> tuple[Tensor, Sequence[Tensor]]:
    """(images, share [B] that remains of each image, by step)."""
    starts = np.cumsum([0, *sizes])
    partners, given = [], []
    for step, start, size in zip(steps, starts[:-1].tolist(), sizes, strict=True):
        assert step.partner is not None
        assert step.share is not None
        partners.append(step.partner + start)
        given.append(step.share.expand(size))
    partner, share = _joined(partners), _joined(given)
    mixed, remaining = images.clone(), share.clone()
    for name in sorted({str(step.mix) for step in steps}):
        rows = _rows([step.mix == name for step in steps], sizes).to(images.device)
        if name == "mixup":
            mixed[rows] = operations.mixup(images, partner, share)[rows]
        else:
            cut, left = operations.cutmix(images, partner, share, u[:, :2])
            mixed[rows], remaining[rows] = cut[rows], left[rows]
    return mixed, remaining.split(list(sizes))


def _rows(chosen: Sequence[bool], sizes: Sequence[int]) -> Tensor:
    """Rows of the chosen batches among all joined ones."""
    return torch.repeat_interleave(torch.tensor(chosen), torch.tensor(sizes)).nonzero().flatten()


@lru_cache(maxsize=16)
def _beta_quantiles(alpha: float, points: int = 65537) -> tuple[np.ndarray, np.ndarray]:
    """(probabilities, quantiles) of Beta(alpha, alpha), to interpolate in.

    With x = sin^2(t) the density is (sin t cos t)^(2 alpha - 1), which is integrated by the
    trapezoidal rule between half-steps, so that alpha < 1/2 has no infinite value at the ends.
    """
    t = np.linspace(0, np.pi / 2, points)
    middle = (t[1:] + t[:-1]) / 2
    mass = (np.sin(middle) * np.cos(middle)) ** (2 * alpha - 1)
    probability = np.concatenate([[0], np.cumsum(mass)])
    return probability / probability[-1], np.sin(t) ** 2
