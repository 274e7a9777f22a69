"""Views of packs: views of many students, drawn and rendered in blocks of steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from raydc.augmentation.rendering import augmented
from raydc.augmentation.streams import CHUNK, Drawn, Streams
from raydc.augmentation.views import View
from raydc.spec.evaluation import Recipe

BLOCK_BYTES = 256 << 20
"""Memory limit of the views of a pack that are rendered in advance."""


@dataclass(frozen=True)
class PackView:
    """Views of V streams in one step."""

    images: Tensor
    """[V, B, C, H, W], augmented."""
    index: Tensor | None
    """[V, B], the images of each set; None for all images in order."""
    partner: Tensor | None
    """[V, B], see `View.partner`."""
    share: Tensor | None
    """[V, B], see `View.share`."""
    places: tuple[tuple[int, int], ...]
    """[V], epoch and batch of each stream's view."""

    def of(self, stream: int) -> View:
        """The view of one stream."""
        return View(
            self.images[stream],
            None if self.index is None else self.index[stream],
            None if self.partner is None else self.partner[stream],
            None if self.share is None else self.share[stream],
        )


class PackViews:
    """The views of several trainings with equal augmentations, drawn and rendered in blocks of steps.

    Each stream has the same views as with `Views`. An operation runs once for all images of a block that it
    applies to, so that many small batches are as fast as one large batch.
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
        """sets: V tensors [N, C, H, W] on the device, of equal shape; equal sets may be one object."""
        self._recipe = recipe
        self._streams = Streams(recipe, len(sets[0]), keys, device, pool)
        distinct = list({id(images): images for images in sets}.values())
        numbers = {id(images): number for number, images in enumerate(distinct)}
        self._sets = torch.stack(distinct)
        self._set_of = torch.tensor([numbers[id(images)] for images in sets], device=device)
        self._grids = torch.tensor(list(grids) or [(1, 1)] * len(sets), device=device)
        step_bytes = len(sets) * self._streams.batch_size * sets[0][0].numel() * sets[0].element_size()
        self._block = max(1, min(CHUNK, BLOCK_BYTES // step_bytes))

    def steps(self, start: int, stop: int) -> Iterator[PackView]:
        """The views of the steps start..stop-1."""
        for first in range(start, stop, CHUNK):
            drawn = self._streams.draw(first, min(first + CHUNK, stop))
            for block in range(0, len(drawn.counts), self._block):
                yield from self._rendered(drawn, range(block, min(block + self._block, len(drawn.counts))))

    def _rendered(self, drawn: Drawn, steps: range) -> Iterator[PackView]:
        """The views of a range of the steps that were drawn."""
        found: dict[int, PackView] = {}
        for count in sorted({drawn.counts[i] for i in steps}):
            chosen = [i for i in steps if drawn.counts[i] == count]
            found |= zip(chosen, self._group(drawn, chosen, count), strict=True)
        for i in steps:
            yield found[i]

    def _group(self, drawn: Drawn, chosen: list[int], count: int) -> list[PackView]:
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
        rendered, remaining = augmented(
            self._recipe,
            images.flatten(0, 2),
            {name: cut(numbers).flatten(0, 2) for name, numbers in drawn.draws.items()},
            choices={name: self._rows(rows, chosen, count) for name, rows in drawn.choices.items()},
            mixes={} if drawn.mixes is None else self._rows(drawn.mixes, chosen, count),
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
                places=tuple(divmod(row[step], per_epoch) for row in drawn.numbers),
            )
            for i, step in enumerate(chosen)
        ]

    def _rows(self, names: list[list[str]], chosen: list[int], count: int) -> dict[str, Tensor | None]:
        """Rows of the block's images by name; None for all rows."""
        flat = [row[i] for row in names for i in chosen]
        if len(set(flat)) == 1:
            return {flat[0]: None}
        within = torch.arange(count)
        rows: dict[str, Tensor | None] = {}
        for name in sorted(set(flat)):
            batches = torch.tensor([number for number, other in enumerate(flat) if other == name])
            rows[name] = (batches[:, None] * count + within).flatten().to(self._set_of.device)
        return rows
