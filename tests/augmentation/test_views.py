"""Views are pure functions: pinned numbers, equal on every device, one image's own parameters."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from raydc.augmentation import operations
from raydc.augmentation.philox import permutations, uniforms, words
from raydc.augmentation.streams import beta_quantiles
from raydc.augmentation.views import Views
from raydc.spec import catalog
from raydc.spec.evaluation import Recipe

GOLDEN = Path(__file__).with_name("views.json")
CPU = torch.device("cpu")
EVERY = ("dsa", "crop", "rrc", "flip", "cutout", "mixup", "cutmix")


def recipe(*augment: str, batch_size: int = 8, strength: float = 1.0) -> Recipe:
    return Recipe(
        "sgd", 0.1, 0.0, "constant", batch_size, steps=9, augment=augment, augment_strength=strength
    )


def images(count: int = 8, side: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 3, side, side, generator=generator)


@pytest.mark.parametrize(
    ("key", "counter", "expected"),
    [  # Random123's known answers for philox4x32-10
        (0, (0, 0, 0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        (2**64 - 1, (2**32 - 1,) * 4, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            0x299F31D0A4093822,
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_philox_gives_the_known_answers(key: int, counter: tuple[int, ...], expected: str) -> None:
    assert " ".join(f"{int(word):08x}" for word in words(key, counter)) == expected


def test_uniforms_fill_the_unit_interval_evenly() -> None:
    zero = torch.zeros(64, dtype=torch.int64)
    drawn = uniforms(7, 3, torch.arange(64), zero, 256)
    assert drawn.shape == (64, 256, 4)
    assert drawn.min() >= 0
    assert drawn.max() < 1
    histogram = torch.histc(drawn, 16, 0, 1) / drawn.numel() * 16
    assert (histogram - 1).abs().max() < 0.05
    assert abs(torch.corrcoef(drawn.reshape(-1, 4).T) - torch.eye(4)).max() < 0.02


def test_permutations_are_permutations_and_differ() -> None:
    epochs = torch.arange(50)
    orders = permutations(3, 0, epochs, torch.zeros_like(epochs), 20)
    assert (orders.sort(dim=1).values == torch.arange(20)).all()
    assert len({tuple(order.tolist()) for order in orders}) == 50


def fingerprint(augment: tuple[str, ...]) -> list[list[float]]:
    views = Views(recipe(*augment, batch_size=5), 8, 11, CPU)
    rows = []
    for step in views.steps(0, 7):
        view = views.render(images(), step)
        rows.append([round(view.images.double().sum().item(), 3), round(view.images.std().item(), 3)])
    return rows


def test_views_are_those_of_the_golden_file() -> None:
    golden = json.loads(GOLDEN.read_text())
    for augment in [(name,) for name in EVERY] + [("crop", "flip", "cutmix")]:
        torch.testing.assert_close(
            torch.tensor(fingerprint(augment)), torch.tensor(golden["+".join(augment)]), atol=2e-3, rtol=1e-4
        )


def test_a_view_does_not_depend_on_where_the_run_began() -> None:
    views = Views(recipe(*EVERY, batch_size=3), 8, 5, CPU)
    whole = [views.render(images(), step).images for step in views.steps(0, 130)]
    late = [views.render(images(), step).images for step in views.steps(99, 130)]
    for a, b in zip(whole[99:], late, strict=True):
        assert torch.equal(a, b)


def test_every_epoch_shows_every_image_once() -> None:
    views = Views(recipe(batch_size=3), 8, 5, CPU)
    orders = [torch.cat([s.index for s in views.steps(3 * e, 3 * e + 3)]).tolist() for e in range(4)]
    assert all(sorted(order) == list(range(8)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4


def test_one_batch_keeps_the_order_of_the_set() -> None:
    assert next(Views(recipe(), 8, 5, CPU).steps(0, 1)).index is None


@pytest.mark.parametrize("name", ["crop", "cutout", "scale", "rotate", "colour", "rrc", "flip"])
def test_each_image_has_its_own_parameters(name: str) -> None:
    same = images(1, 8).expand(16, -1, -1, -1)
    u = uniforms(1, 0, torch.tensor(0), torch.tensor(0), 16)
    out = getattr(operations, name)(same, u)
    assert out.shape == same.shape
    left = {round(image[:, :, :4].sum().item(), 4) for image in out}
    assert len(left) > 1
    alone = torch.cat([getattr(operations, name)(same[i : i + 1], u[i : i + 1]) for i in range(16)])
    torch.testing.assert_close(out, alone)


def test_crop_shifts_and_fills_with_zero() -> None:
    image = torch.arange(1.0, 65.0).view(1, 1, 8, 8)
    u = torch.tensor([[0.99, 0.0, 0, 0]])  # one down, one to the left, at reach 1
    out = operations.crop(image, u)
    assert torch.equal(out[0, 0, :7, 1:], image[0, 0, 1:, :7])
    assert out[0, 0, 7].abs().sum() == 0
    assert out[0, 0, :, 0].abs().sum() == 0


def test_cutout_covers_half_the_side() -> None:
    out = operations.cutout(torch.ones(1, 1, 8, 8), torch.tensor([[0.5, 0.5, 0, 0]]))
    assert out.sum() == 64 - 16


def test_strength_zero_changes_nothing() -> None:
    u = uniforms(1, 0, torch.tensor(0), torch.tensor(0), 8)
    for name in ("crop", "cutout", "colour", "scale", "rotate"):
        out = getattr(operations, name)(images(), u, 0.0)
        torch.testing.assert_close(out, images(), atol=1e-5, rtol=1e-5)


def test_dsa_uses_all_six_operations() -> None:
    views = Views(recipe("dsa"), 8, 5, CPU)
    assert {s.choices["dsa"] for s in views.steps(0, 200)} == set(catalog.AUGMENTATIONS["dsa"].choices)


def test_mixing_mixes_images_and_targets_alike() -> None:
    targets = torch.eye(8)
    for name in ("mixup", "cutmix"):
        views = Views(recipe(name), 8, 5, CPU)
        for step in views.steps(0, 20):
            view = views.render(images(side=16), step)
            mixed = view.mix(targets)
            torch.testing.assert_close(mixed.sum(1), torch.ones(8))
            assert sorted(view.partner.tolist()) == list(range(8))
            if name == "cutmix":
                kept = (view.images == images(side=16)).all(1).float().mean((1, 2))
                own = view.partner == torch.arange(8)
                torch.testing.assert_close(kept[~own], view.share.expand(8)[~own], atol=1e-6, rtol=0)


@pytest.mark.parametrize(("side", "grid"), [(8, (2, 2)), (9, (2, 2)), (8, (3, 3)), (8, (1, 1))])
def test_a_tile_crop_sees_one_tile_only(side: int, grid: tuple[int, int]) -> None:
    from raydc.methods.tiles import edges

    # Each tile has a value of its own, so a view that looks at two tiles shows a mixture.
    image = torch.empty(1, 1, side, side)
    rows, columns = edges(side, grid[0]), edges(side, grid[1])
    for i in range(grid[0]):
        for j in range(grid[1]):
            image[..., rows[i] : rows[i + 1], columns[j] : columns[j + 1]] = 10.0 * i + j
    views = Views(recipe("tile_crop", batch_size=4), 4, 5, CPU, grid=grid)
    seen = set()
    for step in views.steps(0, 60):
        view = views.render(image.expand(4, 1, side, side), step).images
        spread = view.amax((1, 2, 3)) - view.amin((1, 2, 3))
        assert spread.max() < 1e-4
        seen |= set(view.mean((1, 2, 3)).round(decimals=3).tolist())
    assert len(seen) == grid[0] * grid[1]


def test_a_tile_crop_of_one_tile_moves_over_the_whole_image() -> None:
    views = Views(recipe("tile_crop"), 8, 5, CPU)
    values = torch.arange(36.0).view(1, 1, 6, 6).expand(8, 1, 6, 6)
    seen = torch.cat([views.render(values, s).images.flatten() for s in views.steps(0, 40)])
    assert seen.min() < 0.5
    assert seen.max() > 34.5


def test_shuffled_patches_by_hand() -> None:
    image = torch.arange(25.0).view(1, 1, 5, 5)  # edges at 0, 2, 3 and 5
    rows, columns = torch.tensor([[0.5, 0.1, 0.9, 0.0]]), torch.tensor([[0.3, 0.2, 0.1, 0.0]])
    out = operations.patch_shuffle(image, rows, columns, torch.tensor([[3, 3]]))
    assert torch.equal(out[0, 0], image[0, 0][[2, 0, 1, 3, 4]][:, [3, 4, 2, 0, 1]])
    whole = operations.patch_shuffle(image, rows, columns, torch.tensor([[1, 1]]))
    assert torch.equal(whole, image)


@pytest.mark.parametrize(("side", "grid"), [(8, (2, 2)), (9, (3, 3)), (8, (1, 2)), (8, (4, 4))])
def test_shuffled_patches_are_the_same_tiles_elsewhere(side: int, grid: tuple[int, int]) -> None:
    values = torch.arange(float(side * side)).view(1, 1, side, side)
    tiles = {
        tile.flatten()[0].item()
        for strip in values[0, 0].split(side // grid[0])
        for tile in strip.split(side // grid[1], dim=1)
    }
    views = Views(recipe("patch_shuffle", batch_size=4), 4, 5, CPU, grid=grid)
    corners = set()
    for step in views.steps(0, 60):
        for view in views.render(values.expand(4, 1, side, side), step).images:
            assert sorted(view.flatten().tolist()) == values.flatten().tolist()
            corners.add(view[0, 0, 0].item())
            # Pixels of a tile stay beside each other.
            assert view[0, 0, 1] - view[0, 0, 0] == 1
    assert corners == tiles


@pytest.mark.parametrize("alpha", [0.2, 0.8, 1.0, 4.0])
def test_beta_quantiles(alpha: float) -> None:
    probability, quantile = beta_quantiles(alpha)
    for p in (0.05, 0.3, 0.5, 0.9):
        found = float(np.interp(p, probability, quantile))
        assert found == pytest.approx(stats.beta(alpha, alpha).ppf(p), abs=2e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("name", EVERY)
def test_pixels_agree_on_the_gpu(name: str) -> None:
    cuda = torch.device("cuda")
    here, there = (Views(recipe(name, batch_size=5), 8, 5, device) for device in (CPU, cuda))
    for a, b in zip(here.steps(0, 20), there.steps(0, 20), strict=True):
        if a.index is not None:
            assert torch.equal(a.index, b.index.cpu())
        x, y = here.render(images(), a).images, there.render(images().cuda(), b).images.cpu()
        assert (x - y).abs().max() < 1 / 255
