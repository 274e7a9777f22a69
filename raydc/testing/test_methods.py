"""The contract of methods, for all combinations of their choices."""

from __future__ import annotations

import inspect
import random
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raydc.errors import InputError
from raydc.methods.pool import Made, Pool
from raydc.spec import catalog
from raydc.spec.catalog import Method
from raydc.spec.evaluation import DatasetSpec, Evaluation
from raydc.spec.facts import DataFacts, bind
from raydc.spec.keys import Choice, Flag
from raydc.spec.point import point_grammar, resolve
from raydc.testing.parts import each, under_test

SIZES = (30, 31, 32, 33)
"""Images of each class."""
SHAPE = (3, 8, 8)
LABELS = np.random.default_rng(42).permutation(np.repeat(np.arange(4), SIZES))
Setting = Mapping[str, Any]


def settings_of(method: Method) -> list[Setting]:
    """All combinations of the method's choices, with defaults for other keys and `set.pt` for files."""
    values: dict[str, list[Any]] = {}
    for key in method.keys:
        choices = {Choice: lambda kind: list(kind.options()), Flag: lambda _: [False, True]}.get(
            type(key.kind), lambda _, key=key: [key.default]
        )
        free = not any(other.file for other in method.keys)
        values[key.name] = ["set.pt"] if key.file else choices(key.kind) if free else [key.default]
    return [dict(zip(values, chosen, strict=True)) for chosen in product(*values.values())]


CASES = [
    pytest.param(method, setting, id="-".join([method.name, *(str(v) for v in setting.values())]))
    for method in under_test(catalog.METHODS)
    for setting in settings_of(method)
]
every_case = pytest.mark.parametrize(("method", "setting"), CASES)
every_method = each("method", catalog.METHODS)


@pytest.fixture(autouse=True)
def _set_to_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A set to import, with four classes of four images."""
    monkeypatch.chdir(tmp_path)
    images = torch.randn(16, *SHAPE, generator=torch.Generator().manual_seed(0))
    torch.save({"images": images, "labels": torch.arange(16) % 4}, "set.pt")


def read_only(values: np.ndarray) -> np.ndarray:
    values.flags.writeable = False
    return values


def made(
    method: Method, setting: Setting, seed: int = 0, ipc: int = 3, classes: tuple[int, ...] = (0, 1, 2, 3)
) -> Made:
    """The output of the method for a pool with the declared inputs; rows are converted to images."""
    data = np.random.default_rng(7)
    pixels = data.integers(0, 256, (len(LABELS), *SHAPE), dtype=np.uint8)
    features = data.standard_normal((len(LABELS), 5)).astype(np.float32)
    scores = {score.name: data.random(len(LABELS), dtype=np.float32) for score in catalog.SCORES}
    needs = method.needs_at(setting)
    # The arrays are read-only, because features and images may be memory-mapped files.
    pool = Pool(
        labels=read_only(LABELS.copy()),
        classes=classes,
        ipc=ipc,
        generator=np.random.Generator(np.random.Philox(seed)),
        scores={name: read_only(scores[name]) for name in method.scores_of(setting)},
        take=lambda rows: read_only(pixels[rows]),
        shape=SHAPE,
        class_names=tuple("abcd"),
        features=read_only(features) if needs == "features" else None,
        observe=(lambda crops, _: crops.mean((1, 2, 3), dtype=np.float32)) if needs == "observer" else None,
    )
    found = method.load()(pool, **{name.removeprefix("images."): v for name, v in setting.items()})
    if isinstance(found, Made):
        return found
    return Made(pixels[found], LABELS[found], sources=found[:, None])


def contents(one: Made) -> list[Any]:
    return [one.images.tolist(), one.labels.tolist(), None if one.sources is None else one.sources.tolist()]


def tiles_of(setting: Setting) -> int:
    return int(str(setting.get("images.combine", "1x1"))[0]) ** 2


@every_case
@pytest.mark.parametrize("ipc", [1, 3])
def test_exactly_ipc_unique_images_of_each_class(method: Method, setting: Setting, ipc: int) -> None:
    one = made(method, setting, ipc=ipc)
    assert one.images.shape == (4 * ipc, *SHAPE)
    assert one.images.dtype in (np.uint8, np.float32)
    assert len(one.labels) == 4 * ipc
    if setting.get("images.balance") != "global":
        assert np.bincount(one.labels).tolist() == [ipc] * 4
    assert (one.sources is not None) == method.from_train
    if one.sources is not None:
        assert one.sources.shape == (4 * ipc, tiles_of(setting)) == (4 * ipc, one.grid[0] * one.grid[1])
        assert (LABELS[one.sources] == one.labels[:, None]).all()
        assert len(np.unique(one.sources)) == one.sources.size


@every_case
def test_equal_seeds_give_equal_sets(method: Method, setting: Setting) -> None:
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    first = contents(made(method, setting, seed=5))
    for other in catalog.METHODS:
        made(other, settings_of(other)[0], seed=3, ipc=1)
    assert contents(made(method, setting, seed=5)) == first


@every_method
def test_the_seed_matters_only_for_seeded_methods(method: Method) -> None:
    differs = [
        contents(made(method, setting, seed=0)) != contents(made(method, setting, seed=1))
        for setting in settings_of(method)
    ]
    assert any(differs) == method.seeded


@every_case
def test_a_class_may_be_left_out(method: Method, setting: Setting) -> None:
    one = made(method, setting, classes=(0, 2, 3))
    assert len(one.labels) == 9
    assert 1 not in one.labels
    if setting.get("images.balance") != "global":
        assert np.bincount(one.labels, minlength=4).tolist() == [3, 0, 3, 3]


@every_case
def test_a_class_may_be_taken_whole(method: Method, setting: Setting) -> None:
    ipc = min(SIZES) // tiles_of(setting) if method.from_train else 4
    one = made(method, setting, ipc=ipc)
    assert len(one.labels) == 4 * ipc
    if one.sources is not None:
        assert len(np.unique(one.sources)) == one.sources.size
        if tiles_of(setting) == 1 and setting.get("images.balance") != "global":
            assert set(one.sources[one.labels == 0, 0]) == set(np.flatnonzero(LABELS == 0))


def bound(setting: Setting, **keys: Any) -> None:
    """Check a point against the data, as a plan does."""
    given = {"student.arch": "convnet-d2-w8", **setting, **keys}
    point = resolve(point_grammar(), {name: value for name, value in given.items() if value is not None})
    facts = DataFacts("data", tuple("abcd"), SIZES, 10, 0, 3, 8)
    bind([Evaluation(DatasetSpec("data", "named"), point, 0)], facts, "study.yaml")


@every_case
def test_too_many_images_are_refused_before_any_work(method: Method, setting: Setting) -> None:
    most = min(SIZES) // tiles_of(setting)
    if setting.get("images.balance") == "global":
        most = sum(SIZES) // 4
    chosen = {"images.method": method.name, **setting}
    bound(chosen, **{"images.ipc": most})
    if method.from_train:
        with pytest.raises(InputError, match=rf"images\.ipc is {most + 1}.*choose at most"):
            bound(chosen, **{"images.ipc": most + 1})
    elif any(key.file for key in method.keys):
        with pytest.raises(InputError, match=r"images\.ipc is 5; choose at most 4"):
            made(method, setting, ipc=5)


def test_a_pool_smaller_than_the_set_is_refused() -> None:
    point = {"images.method": "rded", "images.combine": "2x2", "images.ipc": 3}
    bound(point, **{"images.mipc": 12})
    with pytest.raises(InputError, match=r"images\.mipc is 11.*raise it to at least 12"):
        bound(point, **{"images.mipc": 11})


@every_method
def test_declared_keys_are_the_functions_arguments(method: Method) -> None:
    names = [name for name in inspect.signature(method.load()).parameters if name != "pool"]
    assert sorted(names) == sorted(key.name.removeprefix("images.") for key in method.keys)
