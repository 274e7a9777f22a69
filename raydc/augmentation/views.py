"""Views of a set: the augmented batches that a student is trained on.

A view is a pure function of (set, augmentations, batch size, view seed, epoch, batch); pixels agree between
devices to 1/255. Parameters come from raydc.augmentation.streams.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from raydc.augmentation.rendering import augmented
from raydc.augmentation.streams import CHUNK, Streams
from raydc.spec.evaluation import Recipe


@dataclass(frozen=True)
class View:
    """The batch of one step."""

    images: Tensor
    """[B, C, H, W], augmented."""
    index: Tensor | None
    """[B] int64, the images of the set; None for all images in order."""
    partner: Tensor | None = None
    """[B] int64, the position in the batch that each image is mixed with, if any."""
    share: Tensor | None = None
    """[B], share of the image itself in the mix."""

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
    """Number of the batch in the epoch."""
    index: Tensor | None
    """[B], images of the batch; None for the whole set in order."""
    draws: dict[str, Tensor]
    """Uniform numbers [B, 4] by stream of random numbers."""
    choices: dict[str, str]
    """The choice of the batch, by augmentation."""
    mix: str | None
    """Name of the augmentation that mixes the images, if any."""
    partner: Tensor | None
    share: Tensor | None
    grid: tuple[int, int] = (1, 1)
    """Rows and columns of tiles in the images."""

    def part(self, rows: slice, images: int) -> Step:
        """The step for a part of the batch; images: size of the set. Only for steps without a mix."""
        assert self.mix is None, "a mix needs the whole batch"
        device = next((numbers.device for numbers in self.draws.values()), None)
        index = torch.arange(images, device=device) if self.index is None else self.index
        return replace(
            self, index=index[rows], draws={name: numbers[rows] for name, numbers in self.draws.items()}
        )


class Views:
    """The views of one training on `images` images; `key` is below 2**63.

    With a `pool` of P, steps from P on reuse the first P views, in a new random order in each round (label
    pruning at batch granularity: arXiv 2410.15919, 2604.18135). `grid`: rows and columns of tiles in the
    images, for `tile_crop` and `patch_shuffle`.
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
        self._grids = torch.tensor([grid], device=device)
        self._streams = Streams(recipe, images, [key], device, pool)
        self.batch_size = self._streams.batch_size
        self.per_epoch = self._streams.per_epoch

    def steps(self, start: int, stop: int) -> Iterator[Step]:
        """Parameters of the steps start..stop-1, drawn in chunks."""
        for first in range(start, stop, CHUNK):
            drawn = self._streams.draw(first, min(first + CHUNK, stop))
            for i, count in enumerate(drawn.counts):
                epoch, batch = divmod(drawn.numbers[0][i], self.per_epoch)
                yield Step(
                    epoch=epoch,
                    batch=batch,
                    index=None if drawn.index is None else drawn.index[0, i, :count],
                    draws={name: numbers[0, i, :count] for name, numbers in drawn.draws.items()},
                    choices={name: rows[0][i] for name, rows in drawn.choices.items()},
                    mix=None if drawn.mixes is None else drawn.mixes[0][i],
                    partner=None if drawn.partner is None else drawn.partner[0, i, :count],
                    share=None if drawn.share is None else drawn.share[0, i],
                    grid=self.grid,
                )

    def render(self, images: Tensor, step: Step) -> View:
        """The view of `step`; images: [N, C, H, W], the whole set."""
        return self.render_batch(images if step.index is None else images[step.index], step)

    def render_batch(self, images: Tensor, step: Step) -> View:
        """Like `render`, for a batch [B, C, H, W] that was gathered with `step.index`."""
        share = None if step.share is None else step.share.expand(len(images))
        rendered, remaining = augmented(
            self.recipe,
            images,
            step.draws,
            choices={name: {choice: None} for name, choice in step.choices.items()},
            mixes={} if step.mix is None else {step.mix: None},
            partner=step.partner,
            share=share,
            grids=self._grids.expand(len(images), 2),
        )
        return View(rendered, step.index, step.partner, remaining)
