"""Methods: the contract that every registered one keeps, and each one's own formula."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

from raydc.methods.pool import Pool
from raydc.spec import catalog
from raydc.spec.catalog import Method


def pool(seed: int = 0, ipc: int = 3, classes: tuple[int, ...] = (0, 1, 2, 3), **changes: Any) -> Pool:
    data = np.random.default_rng(42)
    labels = data.permutation(np.repeat(np.arange(4), [10, 11, 12, 13]))
    values = {
        "labels": labels,
        "classes": classes,
        "ipc": ipc,
        "generator": np.random.Generator(np.random.Philox(seed)),
        "scores": data.random(46).astype(np.float32),
        "features": data.standard_normal((46, 5)).astype(np.float32),
    }
    return Pool(**{**values, **changes})


def defaults(method: Method) -> dict[str, Any]:
    return {key.name.removeprefix("images."): key.default for key in method.keys}


SELECTING = list(catalog.METHODS)


@pytest.mark.parametrize("method", SELECTING, ids=lambda m: m.name)
def test_exactly_ipc_unique_images_of_each_class(method: Method) -> None:
    given = pool()
    rows = method.load()(given, **defaults(method))
    assert len(set(rows.tolist())) == len(rows) == 12
    assert np.bincount(given.labels[rows]).tolist() == [3, 3, 3, 3]


@pytest.mark.parametrize("method", SELECTING, ids=lambda m: m.name)
def test_deterministic_by_seed(method: Method) -> None:
    def rows(seed: int) -> list[int]:
        return method.load()(pool(seed), **defaults(method)).tolist()

    assert rows(0) == rows(0)
    assert (rows(0) != rows(1)) == method.seeded


@pytest.mark.parametrize("method", SELECTING, ids=lambda m: m.name)
def test_a_class_may_be_left_out(method: Method) -> None:
    given = pool(classes=(0, 2, 3))
    rows = method.load()(given, **defaults(method))
    assert np.bincount(given.labels[rows], minlength=4).tolist() == [3, 0, 3, 3]


@pytest.mark.parametrize("method", SELECTING, ids=lambda m: m.name)
def test_declared_keys_are_the_functions_arguments(method: Method) -> None:
    names = [n for n in inspect.signature(method.load()).parameters if n != "pool"]
    assert sorted(names) == sorted(defaults(method))


def test_el2n_keeps_the_chosen_end() -> None:
    given = pool()
    select = catalog.METHODS["el2n"].load()
    for label in range(4):
        members = given.rows_of(label)
        ranked = members[np.argsort(given.scores[members])]
        easy = select(given, end="easy", balance="class")
        hard = select(given, end="hard", balance="class")
        assert [r for r in easy if given.labels[r] == label] == ranked[:3].tolist()
        assert [r for r in hard if given.labels[r] == label] == ranked[::-1][:3].tolist()
    best = select(given, end="easy", balance="global")
    assert best.tolist() == np.argsort(given.scores, kind="stable")[:12].tolist()


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
