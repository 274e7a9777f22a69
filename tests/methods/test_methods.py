"""Methods: each one's own formula, against slow references and by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from raydc.methods.ccs import STRATA, budgets
from raydc.methods.pool import Pool
from raydc.methods.rded import random_windows
from raydc.methods.tiles import edges
from raydc.spec import catalog
from raydc.spec.catalog import Method


def pool(seed: int = 0, ipc: int = 3, classes: tuple[int, ...] = (0, 1, 2, 3), **changes: Any) -> Pool:
    data = np.random.default_rng(42)
    labels = data.permutation(np.repeat(np.arange(4), [10, 11, 12, 13]))
    values = {
        "class_names": tuple("abcd"),
        "labels": labels,
        "classes": classes,
        "ipc": ipc,
        "generator": np.random.Generator(np.random.Philox(seed)),
        "scores": {},
        "features": data.standard_normal((46, 5)).astype(np.float32),
    }
    return Pool(**{**values, **changes})


def pool_for(method: Method, seed: int = 0, **changes: Any) -> Pool:
    """A pool with the scores that the method reads."""
    data = np.random.default_rng(7)
    point = {key.name: key.default for key in method.keys}
    scores = {name: data.random(46).astype(np.float32) for name in method.scores_of(point)}
    return pool(seed, **{"scores": scores, **changes})


def test_pca_prunes_and_combines_whole_images() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (46, 3, 8, 8), dtype=np.uint8)
    method = catalog.METHODS["pca"]
    given = pool_for(method, take=lambda rows: pixels[rows], ipc=2, shape=(3, 8, 8))
    hardness = given.scores["el2n"]
    one = method.load()(given, prune="el2n", combine="2x2")
    assert one.grid == (2, 2)
    for label in range(4):
        members = given.rows_of(label)
        ranked = members[np.argsort(hardness[members])][:8]
        sources = one.sources[one.labels == label]
        assert sources.T.ravel().tolist() == ranked.tolist()
    image, (first, *_) = one.images[0], one.sources[0]
    # A quarter of the area: each pixel is the mean of four.
    mean = pixels[first].reshape(3, 4, 2, 4, 2).mean((2, 4))
    assert np.abs(image[:, :4, :4] - mean).max() <= 1
    plain = method.load()(given, prune="el2n", combine="1x1")
    np.testing.assert_array_equal(plain.images[0], pixels[plain.sources[0, 0]])
    drawn = method.load()(given, prune="none", combine="1x1")
    assert drawn.sources.tolist() != plain.sources.tolist()


@pytest.mark.parametrize("combine", ["1x1", "2x2"])
def test_rded_keeps_the_most_realistic_crop_of_the_most_realistic_images(combine: str) -> None:
    side = int(combine[0])
    pixels = np.random.default_rng(1).integers(0, 256, (46, 3, 8, 8), dtype=np.uint8)
    seen: list[np.ndarray] = []

    def darkness(crops: np.ndarray, labels: np.ndarray) -> np.ndarray:
        assert crops.shape == (len(labels), 3, 8 // side, 8 // side)
        assert set(labels) == {len(seen)}
        seen.append(crops)
        return crops.mean((1, 2, 3))

    given = pool(ipc=2, take=lambda rows: pixels[rows], shape=(3, 8, 8), observe=darkness)
    one = catalog.METHODS["rded"].load()(given, combine=combine, crops=4, mipc=9)
    assert one.grid == (side, side)
    for label in range(4):
        # Nine images with four crops each: the darkest crop of each, the darkest images first.
        crops = seen[label].reshape(9, 4, 3, 8 // side, 8 // side)
        darkest = [min(own, key=np.mean) for own in crops]
        ranked = sorted(darkest, key=np.mean)[: 2 * side * side]
        for image, stored in enumerate(one.images[one.labels == label]):
            tiles = [tile for strip in np.split(stored, side, 1) for tile in np.split(strip, side, 2)]
            for place, tile in enumerate(tiles):
                np.testing.assert_array_equal(tile, ranked[2 * place + image])


def test_crops_are_those_of_a_random_resized_crop() -> None:
    windows = random_windows(np.random.default_rng(0), (20000,), (40, 32))
    left, top, right, bottom = windows.T
    assert (left.min(), top.min(), right.max(), bottom.max()) == (0, 0, 32, 40)
    assert ((right - left) == (bottom - top)).all()
    # The area is uniform in [0.08, 1] of the image, as far as a square of it fits.
    area = (right - left) ** 2 / (40 * 32)
    assert area.min() == pytest.approx(0.08, abs=0.01)
    assert (area < 0.54).mean() == pytest.approx(0.5, abs=0.02)
    # The place is uniform over where it fits.
    narrow = right - left == 16
    assert np.bincount(left[narrow], minlength=17).min() > 0
    assert left[narrow].max() == 16


@pytest.mark.parametrize(("length", "parts"), [(32, 2), (32, 3), (8, 3), (9, 2)])
def test_tiles_cover_an_image(length: int, parts: int) -> None:
    bounds = edges(length, parts)
    assert bounds[0] == 0
    assert bounds[-1] == length
    sizes = np.diff(bounds)
    assert sizes.max() - sizes.min() <= 1


def test_el2n_keeps_the_chosen_end() -> None:
    given = pool_for(catalog.METHODS["el2n"])
    scores = given.scores["el2n"]
    select = catalog.METHODS["el2n"].load()
    for label in range(4):
        members = given.rows_of(label)
        ranked = members[np.argsort(scores[members])]
        easy = select(given, end="easy", balance="class")
        hard = select(given, end="hard", balance="class")
        assert [r for r in easy if given.labels[r] == label] == ranked[:3].tolist()
        assert [r for r in hard if given.labels[r] == label] == ranked[::-1][:3].tolist()
    best = select(given, end="easy", balance="global")
    assert best.tolist() == np.argsort(scores, kind="stable")[:12].tolist()


def test_herding_follows_its_definition() -> None:
    given = pool()
    rows = catalog.METHODS["herding"].load()(given)
    for label in range(4):
        members = given.rows_of(label)
        mean = given.features[members].astype(np.float64).mean(0)
        chosen: list[int] = []
        for _ in range(3):
            distances = {
                r: np.linalg.norm(mean - given.features[[*chosen, r]].astype(np.float64).mean(0))
                for r in members
                if r not in chosen
            }
            chosen.append(min(distances, key=distances.__getitem__))
        assert [r for r in rows if given.labels[r] == label] == chosen


def test_kcenter_follows_its_definition() -> None:
    given = pool(ipc=5)
    rows = catalog.METHODS["kcenter"].load()(given)
    for label in range(4):
        chosen = [r for r in rows if given.labels[r] == label]
        members = given.rows_of(label)
        for count in range(1, 5):

            def nearest(row: int, taken: list[int] = chosen[:count]) -> float:
                return min(float(np.linalg.norm(given.features[row] - given.features[s])) for s in taken)

            farthest = max((r for r in members if r not in chosen[:count]), key=nearest)
            assert chosen[count] == farthest


def test_ccs_budgets_by_hand() -> None:
    # 10 images over strata of 1, 2, 9 and 0: the empty one gets none, 1 of 10 // 3 = 3, then 2 of 9 // 2 = 4,
    # and what they leave goes to the largest.
    assert budgets(np.array([1, 2, 9, 0]), 10).tolist() == [1, 2, 7, 0]
    assert budgets(np.array([5, 5, 5]), 9).tolist() == [3, 3, 3]
    assert budgets(np.array([5, 5, 5]), 10).sum() == 10


def ccs_case(balance: str, ipc: int, seed: int) -> list[int]:
    """Rows 0-5 are class 0, rows 6-11 class 1; a quarter of all 12 is cut: the rows 9, 10 and 11."""
    hardness = np.array([0, 1, 2, 3, 8, 9, 0, 1, 2, 10, 11, 12], np.float32)
    given = pool(seed, ipc, (0, 1), labels=np.repeat([0, 1], 6), scores={"aum": hardness})
    return sorted(catalog.METHODS["ccs"].load()(given, score="aum", beta=0.25, balance=balance).tolist())


def test_ccs_filled_class_by_class_by_hand() -> None:
    assert STRATA == 50
    found = {tuple(ccs_case("class", 2, seed)) for seed in range(200)}
    # Two strata a class: {0, 1, 2, 3} and {4, 5} of class 0, {6, 7} and {8} of class 1; one image of each.
    assert found == {(a, b, c, 8) for a in (0, 1, 2, 3) for b in (4, 5) for c in (6, 7)}
    # Three strata: {0, 1, 2, 3}, none and {4, 5}, so 2 and 1 images; class 1 has just three images left.
    more = [ccs_case("class", 3, seed) for seed in range(40)]
    assert {tuple(row < 4 for row in rows[:3]) for rows in more} == {(True, True, False)}
    assert {tuple(rows[3:]) for rows in more} == {(6, 7, 8)}
    # What the cut took comes back, easiest first, where a class has too few without it.
    assert ccs_case("class", 4, 0)[4:] == [6, 7, 8, 9]


def test_ccs_over_the_whole_set_by_hand() -> None:
    # 50 strata over 0 to 9: {0, 6}, {1, 7}, {2, 8}, {3}, {4} and {5}, the others empty. Four images over
    # strata sorted by size: 4 // 50 to 4 // 5 give none to the empty ones, {3} and {4}; then one to each.
    found = {tuple(ccs_case("global", 2, seed)) for seed in range(200)}
    assert found == {tuple(sorted((a, b, c, 5))) for a in (0, 6) for b in (1, 7) for c in (2, 8)}


def test_ccs_cuts_the_hardest_and_covers_the_rest() -> None:
    labels = np.zeros(100, np.int64)
    hardness = np.arange(100, dtype=np.float32)
    given = pool(ipc=10, classes=(0,), labels=labels, scores={"aum": hardness})
    for balance in ("class", "global"):
        rows = catalog.METHODS["ccs"].load()(given, score="aum", beta=0.3, balance=balance)
        assert len(set(rows.tolist())) == 10
        assert rows.max() < 70
        # Ten strata of seven images each, one image from each (with 50 strata, at most two neighbours).
        assert np.histogram(rows, 10, (0, 70))[0].max() <= 2
    everything = catalog.METHODS["ccs"].load()(given, score="aum", beta=0.95, balance="class")
    assert sorted(everything.tolist()) == list(range(10))


def test_difficulty_bands() -> None:
    labels = np.zeros(100, np.int64)
    hardness = np.random.default_rng(0).permutation(100).astype(np.float32)
    select = catalog.METHODS["difficulty"].load()
    given = pool(ipc=10, classes=(0,), labels=labels, scores={"loss": hardness})
    for band in (0, 4, 9):
        chosen = np.sort(hardness[select(given, band=band)])
        assert chosen.tolist() == list(range(10 * band, 10 * band + 10))
    mixed = hardness[select(given, band="mix")]
    assert sorted((mixed // 10).tolist()) == list(range(10))
    more = pool(ipc=15, classes=(0,), labels=labels, scores={"loss": hardness})
    assert set(hardness[select(more, band=9)] // 10) == {9.0, 8.0}
    assert set(hardness[select(more, band=0)] // 10) == {0.0, 1.0}
