"""Ids: stable over versions (a committed sample), and made of nothing but what matters."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from raydc.spec.evaluation import Evaluation
from raydc.spec.identity import IdBuilder, dataset_id
from raydc.spec.study import StudySpec, parse_study
from tests.conftest import DIGITS
from tests.spec.test_study import EXAMPLE

SAMPLE = Path(__file__).with_name("ids.json")


def ids_of(study: StudySpec) -> dict[str, list[str]]:
    id_builder = IdBuilder(dataset_id("0" * 64, study.dataset))
    evaluations = study.evaluations()
    teacher = next(e.teacher for e in evaluations if e.teacher is not None)
    return {
        "trajectory": [id_builder.trajectory(teacher, 0)],
        "set": sorted({id_builder.compressed_set(e) for e in evaluations}),
        "evaluation": [id_builder.evaluation(e) for e in evaluations],
    }


def test_ids_are_those_of_the_committed_sample() -> None:
    """A new key must not rename old results: do not regenerate the sample, mend the key."""
    assert ids_of(parse_study(EXAMPLE, "f")) == json.loads(SAMPLE.read_text())


def one(study: StudySpec) -> Evaluation:
    (evaluation,) = study.evaluations()
    return evaluation


def name(study: StudySpec) -> str:
    return IdBuilder("data").evaluation(one(study))


SOFT = "base.labels={kind: soft, temperature: 2}"


@pytest.mark.parametrize(
    "same",
    [
        "base.labels.temperature=2.0",
        "base.labels.top_k=null",
        "base.labels.ensemble=1",
        "base.labels.teacher_epoch=2",
        "base.labels.codec=fp16",
        "base.images.encoding=png",
        "base.train.precision=fp32",
        "base.train.lr=0.05",
        "base.train.view_seed=0",
        "base.images.seed=0",
        "teacher.keep=[1, 2]",
        "teacher.count=3",
        "teacher.epochs=2",
        "resources.workers=7",
        "name=another",
        "store.uri=elsewhere",
    ],
)
def test_what_does_not_matter_does_not_rename(small: Callable[..., StudySpec], same: str) -> None:
    settings = [SOFT, same]
    if same.startswith("base.labels."):
        key, _, value = same.removeprefix("base.labels.").partition("=")
        labels = {"kind": "soft", "temperature": "2", key: value}
        settings = [f"base.labels={{{', '.join(f'{k}: {v}' for k, v in labels.items())}}}"]
    assert name(small(*settings)) == name(small(SOFT))


@pytest.mark.parametrize(
    "other",
    [
        "base.images.ipc=3",
        "base.images.seed=1",
        "base.images.encoding=jpeg-50",
        "base.train.lr=0.04",
        "base.train.steps=6",
        "base.train.view_seed=1",
        "base.student.arch=convnet-d2-w9",
        "teacher.lr=0.2",
        "teacher.arch=convnet-d2-w9",
        "seeds=[1]",
    ],
)
def test_what_matters_renames(small: Callable[..., StudySpec], other: str) -> None:
    assert name(small(SOFT, other)) != name(small(SOFT))


def test_a_longer_training_at_a_constant_rate_is_the_same_trajectory(small: Callable[..., StudySpec]) -> None:
    id_builder = IdBuilder("data")

    def trajectory(*settings: str) -> str:
        return id_builder.trajectory(small(*settings).teachers["teacher"], 0)

    assert trajectory("teacher.epochs=9") == trajectory("teacher.epochs=5")
    assert trajectory("teacher.schedule=cosine", "teacher.epochs=9") != trajectory(
        "teacher.schedule=cosine", "teacher.epochs=5"
    )


def test_a_recipe_is_its_values(small: Callable[..., StudySpec]) -> None:
    values = (
        "base.train={recipe: mtt-expert, optimizer: sgd, momentum: 0.9, weight_decay: 5e-4, "
        "schedule: quarters, steps: 5, lr: 0.05, augment: none}"
    )
    assert name(small(values)) == name(small())


def test_replicates_of_a_fixed_method_share_their_set(small: Callable[..., StudySpec]) -> None:
    id_builder = IdBuilder("data")
    herded = small("base.images.method=herding", "seeds=3").evaluations()
    drawn = small("seeds=3").evaluations()
    assert len({id_builder.compressed_set(e) for e in herded}) == 1
    assert len({id_builder.compressed_set(e) for e in drawn}) == 3


def test_the_data_are_named_by_contents_and_options() -> None:
    assert dataset_id("a", DIGITS) == dataset_id("a", replace(DIGITS, location="/elsewhere", name="x"))
    assert dataset_id("a", DIGITS) != dataset_id("b", DIGITS)
    assert dataset_id("a", DIGITS) != dataset_id("a", replace(DIGITS, zca=True))
    assert dataset_id("a", DIGITS) != dataset_id("a", replace(DIGITS, val_fraction=0.1))


def test_an_evaluation_survives_json(small: Callable[..., StudySpec]) -> None:
    evaluation = one(small("base.labels={kind: soft}", "base.train.augment=[crop, rrc]"))
    assert Evaluation.from_json(evaluation.to_json()) == evaluation
