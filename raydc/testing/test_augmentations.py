"""The contract of augmentations: views are pure functions, the same in packs, and pixels change."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from raydc.augmentation.pack_views import PackViews
from raydc.augmentation.views import View, Views
from raydc.spec.catalog import AUGMENTATIONS, Augmentation
from raydc.spec.evaluation import Recipe
from raydc.testing.parts import each
from raydc.testing.training import IMAGES, images, recipe_of

CPU = torch.device("cpu")
STEPS = 6
GRID = (2, 2)
every_augmentation = each("augmentation", AUGMENTATIONS)


def recipe_for(augmentation: Augmentation, strength: float = 1.0) -> Recipe:
    return recipe_of(augmentation.keys, augment=(augmentation.name,), augment_strength=strength)


def views(augmentation: Augmentation, key: int = 3, strength: float = 1.0) -> list[View]:
    """The views of two epochs."""
    made = Views(recipe_for(augmentation, strength), IMAGES, key, CPU, grid=GRID)
    pixels = images()
    return [made.render(pixels, step) for step in made.steps(0, STEPS)]


def original(view: View) -> Tensor:
    return images() if view.index is None else images()[view.index]


@every_augmentation
def test_images_keep_their_shape_and_change(augmentation: Augmentation) -> None:
    for view in views(augmentation):
        assert view.images.shape == original(view).shape
        assert view.images.dtype == torch.float32
        assert view.images.isfinite().all()
    assert any(not torch.equal(view.images, original(view)) for view in views(augmentation))


@every_augmentation
def test_views_depend_on_their_seed_only(augmentation: Augmentation) -> None:
    torch.manual_seed(1)
    first = views(augmentation)
    torch.manual_seed(2)
    for one, other in zip(first, views(augmentation), strict=True):
        assert torch.equal(one.images, other.images)


@every_augmentation
def test_images_are_changed_independently(augmentation: Augmentation) -> None:
    """The result for an image depends on the image and its numbers, not on other images of the batch."""
    if augmentation.mixes:
        assert all(view.partner is not None and view.share is not None for view in views(augmentation))
        return
    made = Views(recipe_for(augmentation), IMAGES, 3, CPU, grid=GRID)
    pixels = images()
    for step in made.steps(0, STEPS):
        whole = made.render(pixels, step).images
        part = made.render(pixels, step.part(slice(1, 3), IMAGES)).images
        torch.testing.assert_close(part, whole[1:3], rtol=1e-5, atol=1e-5)


@every_augmentation
def test_views_in_a_pack_equal_those_of_single_students(augmentation: Augmentation) -> None:
    keys = (3, 4)
    pack = PackViews(recipe_for(augmentation), [images()] * 2, keys, CPU, grids=[GRID] * 2)
    alone = [views(augmentation, key) for key in keys]
    for number, view in enumerate(pack.steps(0, STEPS)):
        for stream in range(len(keys)):
            torch.testing.assert_close(
                view.of(stream).images, alone[stream][number].images, rtol=1e-5, atol=1e-5
            )


@every_augmentation
def test_shares_of_a_mix_are_fractions(augmentation: Augmentation) -> None:
    for view in views(augmentation):
        if view.share is None:
            assert not augmentation.mixes
            continue
        assert ((view.share >= 0) & (view.share <= 1)).all()
        targets = view.mix(torch.eye(IMAGES))
        torch.testing.assert_close(targets.sum(1), torch.ones(len(targets)))


@pytest.mark.parametrize("augmentation", [a for a in AUGMENTATIONS if a.choices], ids=lambda a: a.name)
def test_every_choice_is_drawn(augmentation: Augmentation) -> None:
    made = Views(recipe_for(augmentation), IMAGES, 3, CPU)
    drawn = {step.choices[augmentation.name] for step in made.steps(0, 40 * len(augmentation.choices))}
    assert drawn == set(augmentation.choices)
