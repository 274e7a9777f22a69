"""Rendering: apply augmentations with given parameters; each operation runs once for all its images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor

from raydc.spec import catalog
from raydc.spec.evaluation import Recipe
from raydc.spec.training_entries import Augmentation

Rows = Mapping[str, Tensor | None]
"""Rows by name; None for all rows."""


def policy_of(recipe: Recipe) -> tuple[list[Augmentation], list[Augmentation]]:
    """(augmentations of single images, augmentations that mix images), in the order in which they are
    applied."""
    chosen = [entry for entry in catalog.AUGMENTATIONS if entry.name in recipe.augment]
    return [entry for entry in chosen if not entry.mixes], [entry for entry in chosen if entry.mixes]


def augmented(
    recipe: Recipe,
    images: Tensor,
    draws: dict[str, Tensor],
    *,
    choices: Mapping[str, Rows],
    mixes: Rows,
    partner: Tensor | None,
    share: Tensor | None,
    grids: Tensor,
) -> tuple[Tensor, Tensor | None]:
    """(images [n, C, H, W] after all augmentations, fraction [n] of each image that remains, if mixed).

    draws: [n, 4] by stream; choices: the rows of each choice, by augmentation; mixes: the rows of each mix.
    partner: [n] rows; grids: [n, 2].
    """
    singles, _ = policy_of(recipe)
    for entry in singles:
        more: dict[str, Any] = recipe.arguments(entry.keys)
        if "strength" in entry.needs:
            more["strength"] = recipe.augment_strength
        numbers = [draws[stream] for stream in entry.drawn]
        change = partial(entry.load(), **more)
        if not entry.choices and "grid" in entry.needs:
            images = change(images, *numbers, grid=grids)
        elif not entry.choices:
            images = change(images, *numbers)
        else:
            images = _by_choice(
                images, numbers, choices[entry.name], change, grids if "grid" in entry.needs else None
            )
    if not mixes:
        return images, None
    assert partner is not None
    assert share is not None
    return _mixed(recipe, images, draws, mixes, partner, share)


def _by_choice(
    images: Tensor,
    numbers: list[Tensor],
    rows_of: Rows,
    change: Callable[..., Tensor],
    grids: Tensor | None,
) -> Tensor:
    """Apply the choice of each group of rows."""
    for choice, rows in rows_of.items():
        more = {} if grids is None else {"grid": _at(grids, rows)}
        changed = change(_at(images, rows), *(_at(u, rows) for u in numbers), choice=choice, **more)
        images = changed if rows is None else images.index_copy(0, rows, changed)
    return images


def _mixed(
    recipe: Recipe, images: Tensor, draws: dict[str, Tensor], mixes: Rows, partner: Tensor, share: Tensor
) -> tuple[Tensor, Tensor]:
    """Apply the mix of each group of rows; also returns the fraction of each image that remains."""
    mixed, remaining = images, share
    for name, rows in mixes.items():
        entry = catalog.AUGMENTATIONS[name]
        keys = [key for key in entry.keys if key.name != entry.alpha]
        whole, left = entry.load()(images, partner, share, draws["mix"][:, :2], **recipe.arguments(keys))
        mixed = whole if rows is None else mixed.index_copy(0, rows, whole[rows])
        remaining = left if rows is None else remaining.index_copy(0, rows, left[rows])
    return mixed, remaining


def _at(values: Tensor, rows: Tensor | None) -> Tensor:
    return values if rows is None else values[rows]
