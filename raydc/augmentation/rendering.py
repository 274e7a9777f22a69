"""Rendering: images and parameters to augmented images, each operation once over all it applies to."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from raydc.augmentation import operations
from raydc.spec.evaluation import Recipe


def augmented(
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
    if "patch rows" in draws:
        images = operations.patch_shuffle(images, draws["patch rows"], draws["patch columns"], grids)
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
