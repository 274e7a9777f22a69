"""Views of a set: the order of its images and the parameters of its augmentations.

A view is a pure function of (set, policy, batch size, view seed, epoch, batch). All randomness comes
from counters, one stream a purpose, computed alike on every device and pinned by a golden file;
pixels agree between devices to 1/255.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
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
BLOCK_BYTES = 256 << 20
"""Views of packs that are rendered ahead take at most this."""


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


@dataclass(frozen=True)
class _Drawn:
    """Parameters of L steps of V streams of views, drawn together."""

    met: list[list[int]]
    """[V][L], number of the view that each step meets."""
    counts: list[int]
    """[L], images of each step, in all streams alike."""
    index: Tensor | None
    """[V, L, B]; None for the whole set in its own order."""
    draws: dict[str, Tensor]
    """[V, L, B, 4] by stream."""
    dsa: list[list[str]] | None
    """[V][L]"""
    mixes: list[list[str]] | None
    """[V][L]"""
    partner: Tensor | None
    """[V, L, B]; positions that lie in the batch come first."""
    share: Tensor | None
    """[V, L]"""


class _Streams:
    """V streams of views with equal augmentations over sets of equal size."""

    def __init__(
        self, recipe: Recipe, images: int, keys: Sequence[int], device: torch.device, pool: int | None
    ) -> None:
        self.recipe = recipe
        self.images = images
        self.batch_size = min(recipe.batch_size, images)
        self.per_epoch = recipe.steps_per_epoch(images)
        self.device = device
        self.pool = pool
        self._here = torch.tensor(list(keys), dtype=torch.int64).view(-1, 1, 1)
        self._keys = self._here.to(device)
        self._names: list[str] = [n for n in ("crop", "rrc", "flip", "cutout", "dsa") if n in recipe.augment]
        if "tile_crop" in recipe.augment:
            self._names += ["tile", "tile choice"]
        self._mixes: list[str] = [name for name in ("mixup", "cutmix") if name in recipe.augment]

    def draw(self, first: int, last: int) -> _Drawn:
        """Parameters of the steps first..last-1."""
        met = self._met(first, last)
        size = self.batch_size
        epochs_here, batches_here = met // self.per_epoch, met % self.per_epoch
        epochs, batches = epochs_here.to(self.device), batches_here.to(self.device)
        draws = {name: uniforms(self._keys, STREAMS[name], epochs, batches, size) for name in self._names}
        counts = [min(size, self.images - batch * size) for batch in batches_here[0].tolist()]
        dsa = self._dsa_choices(epochs_here, batches_here) if "dsa" in self.recipe.augment else None
        mixes = partner = share = None
        if self._mixes:
            mixes, shares, centres = self._mix_parameters(epochs_here, batches_here)
            draws["mix"] = centres.expand(-1, -1, size, -1).to(self.device)
            share = shares.to(self.device)
            partner = permutations(self._keys, STREAMS["partner"], epochs, batches, size)
            if min(counts) < size:
                inside = torch.tensor(counts, device=self.device)[:, None]
                partner = partner.gather(2, (partner >= inside).int().argsort(dim=2, stable=True))
        index = self._index(epochs_here, batches)
        return _Drawn(met.tolist(), counts, index, draws, dsa, mixes, partner, share)

    def _met(self, first: int, last: int) -> Tensor:
        """Number of the view that each of the steps first..last-1 meets: [V, last - first], on the CPU.

        The views of one batch number take turns among themselves, so that every epoch meets every
        image, and a step's batch has one size whatever the key.
        """
        streams = len(self._here)
        if self.pool is None or last <= self.pool:
            return torch.arange(first, last).expand(streams, -1)
        per_epoch = min(self.per_epoch, self.pool)
        orders: dict[tuple[int, int], Tensor] = {}
        met = []
        for step in range(first, last):
            batch, turn = step % per_epoch, step // per_epoch
            # Views of this batch number: one more if it is in the pool's last, incomplete epoch.
            count = (self.pool - batch + per_epoch - 1) // per_epoch
            round_, place = divmod(turn, count)
            if round_ == 0:
                met.append(torch.full((streams,), step))
                continue
            if (round_, batch) not in orders:
                numbers = torch.tensor([round_]), torch.tensor([batch])
                orders[round_, batch] = permutations(self._here, STREAMS["pool"], *numbers, count)[:, 0]
            met.append(orders[round_, batch][:, place] * per_epoch + batch)
        return torch.stack(met, 1)

    def _index(self, epochs: Tensor, batches: Tensor) -> Tensor | None:
        """Images of each batch [V, L, B]; None where one batch holds them all."""
        if self.per_epoch == 1:
            return None
        numbers = sorted(set(epochs.flatten().tolist()))
        where = torch.searchsorted(torch.tensor(numbers), epochs.contiguous()).to(self.device)
        asked = torch.tensor(numbers, device=self.device)
        orders = permutations(self._keys, STREAMS["order"], asked, torch.zeros_like(asked), self.images)
        place = torch.arange(self.batch_size, device=self.device)
        # The last batch may be smaller; what lies beyond it is cut off by its count.
        position = (batches[..., None] * self.batch_size + place).clamp_max(self.images - 1)
        stream = torch.arange(len(orders), device=self.device)[:, None, None]
        return orders[stream, where[..., None], position]

    def _dsa_choices(self, epochs: Tensor, batches: Tensor) -> list[list[str]]:
        u = uniforms(self._here, STREAMS["dsa choice"], epochs, batches, 1)[..., 0, 0]
        names = operations.DSA_OPERATIONS
        return [[names[int(number * len(names))] for number in row] for row in u.tolist()]

    def _mix_parameters(self, epochs: Tensor, batches: Tensor) -> tuple[list[list[str]], Tensor, Tensor]:
        """(which mix [V][L], share of the image itself [V, L], centre of the box [V, L, 1, 2])."""
        u = uniforms(self._here, STREAMS["mix"], epochs, batches, 1)[..., 0, :]
        alphas = {"mixup": self.recipe.mixup_alpha, "cutmix": self.recipe.cutmix_alpha}
        names, shares = [], []
        for row in u.tolist():
            chosen = [self._mixes[int(numbers[0] * len(self._mixes))] for numbers in row]
            names.append(chosen)
            shares.append(
                [
                    float(np.interp(numbers[1], *_beta_quantiles(alphas[name])))
                    for name, numbers in zip(chosen, row, strict=True)
                ]
            )
        return names, torch.tensor(shares, dtype=torch.float32), u[:, :, None, 2:]


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
        self.grid = grid
        self._streams = _Streams(recipe, images, [key], device, pool)
        self.batch_size = self._streams.batch_size
        self.per_epoch = self._streams.per_epoch

    def steps(self, start: int, stop: int) -> Iterator[Step]:
        """Parameters of the steps start..stop-1, drawn a chunk at a time."""
        for first in range(start, stop, CHUNK):
            drawn = self._streams.draw(first, min(first + CHUNK, stop))
            for i, count in enumerate(drawn.counts):
                epoch, batch = divmod(drawn.met[0][i], self.per_epoch)
                yield Step(
                    epoch=epoch,
                    batch=batch,
                    index=None if drawn.index is None else drawn.index[0, i, :count],
                    draws={name: numbers[0, i, :count] for name, numbers in drawn.draws.items()},
                    dsa_operation=None if drawn.dsa is None else drawn.dsa[0][i],
                    mix=None if drawn.mixes is None else drawn.mixes[0][i],
                    partner=None if drawn.partner is None else drawn.partner[0, i, :count],
                    share=None if drawn.share is None else drawn.share[0, i],
                    grid=self.grid,
                )

    def render(self, images: Tensor, step: Step) -> View:
        """The view of `step`; images: [N, C, H, W], the whole set."""
        return self.render_batch(images if step.index is None else images[step.index], step)

    def render_batch(self, images: Tensor, step: Step) -> View:
        """As `render`, for a batch [B, C, H, W] that was gathered by `step.index`."""
        share = None if step.share is None else step.share.expand(len(images))
        grids = torch.tensor([self.grid], device=images.device).expand(len(images), 2)
        rendered, remaining = _augmented(
            self.recipe,
            images,
            step.draws,
            dsa={} if step.dsa_operation is None else {step.dsa_operation: None},
            mixes={} if step.mix is None else {step.mix: None},
            partner=step.partner,
            share=share,
            grids=grids,
        )
        return View(rendered, step.index, step.partner, remaining)


@dataclass(frozen=True)
class PackView:
    """What V streams of students see in one step."""

    images: Tensor
    """[V, B, C, H, W], augmented."""
    index: Tensor | None
    """[V, B], which images of each set; None for all in their own order."""
    partner: Tensor | None
    """[V, B], as in `View`."""
    share: Tensor | None
    """[V, B]"""
    places: tuple[tuple[int, int], ...]
    """[V], epoch and batch of each stream's view."""

    def of(self, stream: int) -> View:
        """What one stream sees."""
        return View(
            self.images[stream],
            None if self.index is None else self.index[stream],
            None if self.partner is None else self.partner[stream],
            None if self.share is None else self.share[stream],
        )


class PackViews:
    """The views of many trainings with equal augmentations, drawn and rendered a block of steps at a time.

    Each stream's views are those that `Views` gives it alone. An operation runs once over all images of a
    block that it applies to, so that many small batches cost as little as one large one.
    """

    def __init__(
        self,
        recipe: Recipe,
        sets: Sequence[Tensor],
        keys: Sequence[int],
        device: torch.device,
        pool: int | None = None,
        grids: Sequence[tuple[int, int]] = (),
    ) -> None:
        """sets: V tensors [N, C, H, W] on the device, of equal shape; equal ones may be one object."""
        self._recipe = recipe
        self._streams = _Streams(recipe, len(sets[0]), keys, device, pool)
        distinct = list({id(images): images for images in sets}.values())
        numbers = {id(images): number for number, images in enumerate(distinct)}
        self._sets = torch.stack(distinct)
        self._set_of = torch.tensor([numbers[id(images)] for images in sets], device=device)
        self._grids = torch.tensor(list(grids) or [(1, 1)] * len(sets), device=device)
        step_bytes = len(sets) * self._streams.batch_size * sets[0][0].numel() * sets[0].element_size()
        self._block = max(1, min(CHUNK, BLOCK_BYTES // step_bytes))

    def steps(self, start: int, stop: int) -> Iterator[PackView]:
        """The views of the steps start..stop-1."""
        for first in range(start, stop, self._block):
            yield from self._rendered(self._streams.draw(first, min(first + self._block, stop)))

    def _rendered(self, drawn: _Drawn) -> Iterator[PackView]:
        found: dict[int, PackView] = {}
        for count in sorted(set(drawn.counts)):
            chosen = [i for i, other in enumerate(drawn.counts) if other == count]
            found |= zip(chosen, self._group(drawn, chosen, count), strict=True)
        for i in range(len(drawn.counts)):
            yield found[i]

    def _group(self, drawn: _Drawn, chosen: list[int], count: int) -> list[PackView]:
        """Views of the steps `chosen`, whose batches have `count` images."""
        streams, steps = len(self._set_of), len(chosen)

        def cut(values: Tensor) -> Tensor:
            """[V, L, B, ...] -> [V, steps, count, ...]"""
            part = values if steps == len(drawn.counts) else values[:, chosen]
            return part[:, :, :count]

        index = None if drawn.index is None else cut(drawn.index)
        if index is None:
            images = self._sets[self._set_of][:, None].expand(-1, steps, -1, -1, -1, -1)
        else:
            images = self._sets[self._set_of[:, None, None], index]
        partner = share = flat_partner = flat_share = None
        if drawn.partner is not None and drawn.share is not None:
            partner = cut(drawn.partner)
            batch = torch.arange(streams * steps, device=partner.device).view(streams, steps, 1)
            flat_partner = (partner + batch * count).flatten()
            flat_share = drawn.share[:, chosen, None].expand(-1, -1, count).flatten()
        rendered, remaining = _augmented(
            self._recipe,
            images.flatten(0, 2),
            {name: cut(numbers).flatten(0, 2) for name, numbers in drawn.draws.items()},
            dsa=self._rows(drawn.dsa, chosen, count),
            mixes=self._rows(drawn.mixes, chosen, count),
            partner=flat_partner,
            share=flat_share,
            grids=self._grids[:, None, None].expand(-1, steps, count, -1).flatten(0, 2),
        )
        rendered = rendered.view(streams, steps, count, *rendered.shape[1:])
        if remaining is not None:
            share = remaining.view(streams, steps, count)
        per_epoch = self._streams.per_epoch
        return [
            PackView(
                images=rendered[:, i],
                index=None if index is None else index[:, i],
                partner=None if partner is None else partner[:, i],
                share=None if share is None else share[:, i],
                places=tuple(divmod(row[step], per_epoch) for row in drawn.met),
            )
            for i, step in enumerate(chosen)
        ]

    def _rows(self, names: list[list[str]] | None, chosen: list[int], count: int) -> dict[str, Tensor | None]:
        """Rows of the block's images that each operation applies to; None for all of them."""
        if names is None:
            return {}
        flat = [row[i] for row in names for i in chosen]
        if len(set(flat)) == 1:
            return {flat[0]: None}
        within = torch.arange(count)
        rows: dict[str, Tensor | None] = {}
        for name in sorted(set(flat)):
            batches = torch.tensor([number for number, other in enumerate(flat) if other == name])
            rows[name] = (batches[:, None] * count + within).flatten().to(self._set_of.device)
        return rows


def _augmented(
    recipe: Recipe,
    images: Tensor,
    draws: dict[str, Tensor],
    *,
    dsa: Mapping[str, Tensor | None],
    mixes: Mapping[str, Tensor | None],
    partner: Tensor | None,
    share: Tensor | None,
    grids: Tensor,
) -> tuple[Tensor, Tensor | None]:
    """(images [n, C, H, W] after all augmentations, share [n] that remains of each).

    dsa, mixes: the rows that an operation applies to, by its name; None for all. partner: [n] rows.
    """
    strength = recipe.augment_strength
    if dsa:
        images = _by_rows(
            images,
            dsa,
            lambda name, part, rows: operations.dsa(part, _at(draws["dsa"], rows), name, strength),
        )
    if "crop" in draws:
        images = operations.crop(images, draws["crop"], strength)
    if "rrc" in draws:
        images = operations.rrc(images, draws["rrc"], recipe.crop_scale)
    if "tile" in draws:
        images = operations.tile_crop(images, draws["tile"], draws["tile choice"], grids, recipe.crop_scale)
    if "flip" in draws:
        images = operations.flip(images, draws["flip"])
    if "cutout" in draws:
        images = operations.cutout(images, draws["cutout"], strength)
    if not mixes:
        return images, None
    assert partner is not None
    assert share is not None
    remaining = share
    mixed = images
    for name, rows in mixes.items():
        if name == "mixup":
            whole = operations.mixup(images, partner, share)
        else:
            whole, left = operations.cutmix(images, partner, share, draws["mix"][:, :2])
            remaining = left if rows is None else remaining.index_copy(0, rows, left[rows])
        mixed = whole if rows is None else mixed.index_copy(0, rows, whole[rows])
    return mixed, remaining


def _at(values: Tensor, rows: Tensor | None) -> Tensor:
    return values if rows is None else values[rows]


def _by_rows(
    images: Tensor,
    groups: Mapping[str, Tensor | None],
    change: Callable[[str, Tensor, Tensor | None], Tensor],
) -> Tensor:
    """Each group of rows changed by its own operation."""
    for name, rows in groups.items():
        changed = change(name, _at(images, rows), rows)
        images = changed if rows is None else images.index_copy(0, rows, changed)
    return images


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
