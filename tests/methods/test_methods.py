"""Methods: the contract that every registered one keeps, and each one's own formula."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raydc.methods.ccs import budgets
from raydc.methods.pool import Made, Pool
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


@pytest.fixture(autouse=True)
def _imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A set to import, four images of each of four classes."""
    monkeypatch.chdir(tmp_path)
    images = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.save({"images": images, "labels": torch.arange(16) % 4}, "set.pt")


def defaults(method: Method) -> dict[str, Any]:
    """Values of all keys of a method; a key that names a file gets one."""
    return {key.name.removeprefix("images."): "set.pt" if key.file else key.default for key in method.keys}


def pool_for(method: Method, seed: int = 0, **changes: Any) -> Pool:
    """A pool with the scores that the method reads."""
    data = np.random.default_rng(7)
    point = {key.name: key.default for key in method.keys}
    scores = {name: data.random(46).astype(np.float32) for name in method.scores_of(point)}
    return pool(seed, **{"scores": scores, **changes})


SELECTING = [m for m in catalog.METHODS if m.name not in ("pca", "noise", "imported")]
"""Methods that return rows; the others make images."""
MAKING = [m for m in catalog.METHODS if m not in SELECTING]


@pytest.mark.parametrize("method", SELECTING, ids=lambda m: m.name)
def test_exactly_ipc_unique_images_of_each_class(method: Method) -> None:
    given = pool_for(method)
    rows = method.load()(given, **defaults(method))
    assert len(set(rows.tolist())) == len(rows) == 12
    assert np.bincount(given.labels[rows]).tolist() == [3, 3, 3, 3]


@pytest.mark.parametrize("method", SELECTING, ids=lambda m: m.name)
def test_deterministic_by_seed(method: Method) -> None:
    def rows(seed: int) -> list[int]:
        return method.load()(pool_for(method, seed), **defaults(method)).tolist()

    assert rows(0) == rows(0)
    assert (rows(0) != rows(1)) == method.seeded


@pytest.mark.parametrize("method", SELECTING, ids=lambda m: m.name)
def test_a_class_may_be_left_out(method: Method) -> None:
    given = pool_for(method, classes=(0, 2, 3))
    rows = method.load()(given, **defaults(method))
    assert np.bincount(given.labels[rows], minlength=4).tolist() == [3, 0, 3, 3]


@pytest.mark.parametrize("method", MAKING, ids=lambda m: m.name)
def test_made_images_are_ipc_a_class_and_deterministic_by_seed(method: Method) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (46, 3, 8, 8), dtype=np.uint8)

    def made(seed: int) -> Made:
        given = pool_for(method, seed, take=lambda rows: pixels[rows], shape=(3, 8, 8), ipc=2)
        return method.load()(given, **defaults(method))

    one = made(0)
    assert one.images.shape == (8, 3, 8, 8)
    assert np.bincount(one.labels).tolist() == [2, 2, 2, 2]
    np.testing.assert_array_equal(one.images, made(0).images)
    if one.sources is not None:
        labels = pool().labels
        assert (labels[one.sources] == one.labels[:, None]).all()
        assert len(set(one.sources.ravel().tolist())) == one.sources.size


def test_pca_prunes_and_combines_whole_images() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (46, 3, 8, 8), dtype=np.uint8)
    method = catalog.METHODS["pca"]
    given = pool_for(method, take=lambda rows: pixels[rows], ipc=2)
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


@pytest.mark.parametrize(("length", "parts"), [(32, 2), (32, 3), (8, 3), (9, 2)])
def test_tiles_cover_an_image(length: int, parts: int) -> None:
    bounds = edges(length, parts)
    assert bounds[0] == 0
    assert bounds[-1] == length
    sizes = np.diff(bounds)
    assert sizes.max() - sizes.min() <= 1


@pytest.mark.parametrize("method", list(catalog.METHODS), ids=lambda m: m.name)
def test_declared_keys_are_the_functions_arguments(method: Method) -> None:
    names = [n for n in inspect.signature(method.load()).parameters if n != "pool"]
    assert sorted(names) == sorted(defaults(method))


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
