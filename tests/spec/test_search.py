"""The search block: what it holds, and the sentence with which anything else is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from raydc.errors import InputError
from raydc.spec.study import StudySpec, load_study, parse_study

SEARCH = """
search:
  optuna:
    trials: 8
    space:
      labels.kind: {categorical: [hard, soft]}
      labels.temperature: {loguniform: [0.5, 20], when: {labels.kind: soft}}
      labels.teacher_epoch: {int: [1, 2], when: {labels.kind: soft}}
      train.lr: {loguniform: [0.01, 0.1]}
"""
SPACE = "search.optuna.space."


@pytest.fixture
def search(small: Callable[..., StudySpec]) -> Callable[..., StudySpec]:
    return lambda *settings: small(*settings, extra=SEARCH)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("search.optuna.space={}", "search.optuna.space is {}, but must be a mapping"),
        ("search=5", "search is 5, but must be a mapping {optuna: "),
        ("search.tune.trials=3", "search.tune is not a key of search; use optuna"),
        ("search.optuna.trials=0", "search.optuna.trials is 0, but must be a whole number of at least 1"),
        ("search.optuna.trails=3", "trails is not a key of optuna; choose trials, metric,"),
        ("search.optuna.trails=3", "did you mean trials?"),
        ("search.optuna.metric=test_acc", "metric is 'test_acc', but must be val_acc"),
        ("search.optuna.metric=test_acc", "test images are not used for selection"),
        ("search.optuna.metric=best_test_acc", "test images are not used for selection"),
        ("search.optuna.metric=[val_acc, test_loss]", "test images are not used for selection"),
        ("search.optuna.metric=val_ac", "did you mean val_acc?"),
        ("search.optuna.metric=[val_acc, stored_bytes]", "must be max or min for each of the 2 metrics"),
        ("search.optuna.mode=up", "mode is 'up', but must be max or min"),
        ("search.optuna.sampler=tp", "must be tpe, gp, cmaes, random, grid or nsga2; did you mean tpe?"),
        ("search.optuna.scheduler=ahsa", "did you mean asha?"),
        (f"{SPACE}train.rl={{uniform: [0, 1]}}", "space.train.rl is not a key of train;"),
        (f"{SPACE}train.lr={{uniform: [0.2, 0.1]}}",
         "is [0.2, 0.1], but must be two numbers, the smaller one first"),
        (f"{SPACE}train.lr={{uniform: [0.2]}}", "train.lr.uniform is [0.2], but must be [LOW, HIGH]"),
        (f"{SPACE}train.lr={{categorical: []}}", "train.lr.categorical is [], but must be a list of values"),
        (f"{SPACE}train.lr=[0.1, 0.2]", "space.train.lr is [0.1, 0.2], but must be {uniform: [LOW, HIGH]}"),
        (f"{SPACE}train.lr={{int: [0.1, 0.2]}}", "give two whole numbers, or uniform or loguniform"),
        (f"{SPACE}images.ipc={{uniform: [1, 5]}}", "holds a whole number of at least 1; give int or logint"),
        (f"{SPACE}train.augment={{int: [1, 5]}}", "train.augment is 1, but must be none, or one or a list"),
        (f"{SPACE}labels.kind={{categorical: [hard, sotf]}}", "labels.kind is 'sotf', but must be hard"),
        (f"{SPACE}labels.kind={{categorical: [hard, sotf]}}", "did you mean soft?"),
        (f"{SPACE}labels.temperature={{uniform: [0, 3]}}",
         "labels.temperature is 0, but must be a finite number above"),
        (f"{SPACE}train.weight_decay={{loguniform: [0, 1]}}", "a logarithmic range must begin above 0"),
        (f"{SPACE}labels.teacher_epoch={{int: [1, 9]}}",
         "is 9, but the teacher 'teacher' is trained for 2 epochs"),
        (f"{SPACE}train.mixup_alpha={{uniform: [0.1, 4]}}", "mixup_alpha (0.1) applies to no point"),
        (f"{SPACE}images.ipc={{int: [1, 5], when: {{labels.knd: soft}}}}",
         "labels.knd is not a key of labels"),
        (f"{SPACE}images.ipc={{int: [1, 5], when: {{train.steps: 5}}}}",
         "names train.steps, which is not searched"),
        (f"{SPACE}images.ipc={{int: [1, 5], when: {{labels.kind: smooth}}}}",
         "but labels.kind is one of hard, soft"),
        (f"{SPACE}labels.kind={{categorical: [hard, soft], when: {{labels.temperature: 1}}}}",
         "labels.kind, labels.temperature and labels.teacher_epoch depend on each other"),
        ("search.optuna.enqueue=[{labels.knd: hard}]", "enqueue.0.labels.knd is not searched"),
        ("search.optuna.enqueue=[{train.lr: 0.5}]",
         "enqueue.0.train.lr is 0.5, but must be a number from 0.01 to 0.1"),
        ("search.optuna.enqueue=[{train.lr: 0.05}, {train.lr: 0.05}]", "enqueue gives the point 1 twice"),
        ("search.optuna.enqueue=hard", "enqueue is 'hard', but must be a list of mappings"),
        ("search.optuna.sampler=grid", "space.train.lr is loguniform, which cannot be listed"),
        ("grid.images.ipc=[1, 2]", "search and grid exclude each other; keep one"),
        ("dataset.val_fraction=0", "dataset.val_fraction is 0, but a search selects points by validation"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(search: Callable[..., StudySpec], setting: str, said: str) -> None:
    with pytest.raises(InputError) as refused:
        search(setting)
    sentence = str(refused.value)
    assert sentence.startswith("small.yaml: ")
    assert said in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ("{space: {train.lr: {uniform: [0.1, 1]}}}",
         "search.optuna.trials is missing; it must be a whole number"),
        ("{trials: 3}", "search.optuna.space is missing; it must be a mapping"),
        ("[3]", "search.optuna is [3], but must be a mapping with trials and space"),
        ("{trials: 1, sampler: grid, space: {train.steps: {int: [1, 1000000]}}}",
         "at most 100,000 are listed"),
    ],
)  # fmt: skip
def test_a_block_that_lacks_something(small: Callable[..., StudySpec], block: str, said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        small(extra=f"search: {{optuna: {block}}}\n")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("metric=[val_acc, steps]", "mode=[max, min]",
         "sampler=cmaes"), "sampler is cmaes, which supports one objective only"),
        (("metric=[val_acc, steps]", "mode=[max, min]",
         "scheduler=asha"), "scheduler is asha, which stops students by"),
        (("metric=train_acc", "scheduler=median"), "use none, or val_acc only"),
    ],
)  # fmt: skip
def test_what_does_not_go_together(
    search: Callable[..., StudySpec], settings: tuple[str, ...], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        search(*(f"search.optuna.{setting}" for setting in settings))


def test_a_search_survives_its_own_yaml(search: Callable[..., StudySpec]) -> None:
    study = search("search.optuna.enqueue=[{labels.kind: hard}]", "search.optuna.trials=9")
    again = parse_study(study.to_yaml(), "small.yaml")
    assert again == study
    assert again.search is not None
    assert again.search.trials == 9


def test_settings_reach_into_the_space(search: Callable[..., StudySpec]) -> None:
    study = search(f"{SPACE}train.lr={{uniform: [0.02, 0.03]}}", f"{SPACE}labels.temperature=null")
    assert study.search is not None
    dimensions = {d.key: d for d in study.search.space}
    assert (dimensions["train.lr"].kind, dimensions["train.lr"].high) == ("uniform", 0.03)
    assert "labels.temperature" not in dimensions


def test_the_smoke_block_shrinks_a_search(
    study_file: Callable[[str], Path], search: Callable[..., StudySpec]
) -> None:
    text = search().to_yaml() + "smoke:\n  search.optuna.trials: 2\n  search: {optuna: {winner_seeds: 0}}\n"
    path = study_file(text)
    small = load_study(path, smoke=True).search
    assert small is not None
    assert (small.trials, small.winner_seeds) == (2, 0)


def test_a_range_of_teacher_epochs_means_those_that_are_kept(search: Callable[..., StudySpec]) -> None:
    settings = (
        "teacher.epochs=9",
        "teacher.keep=[0, 2, 5, 9]",
        f"{SPACE}labels.teacher_epoch={{int: [1, 8]}}",
    )
    study = search(*settings)
    assert study.search is not None
    epoch = next(d for d in study.search.space if d.key == "labels.teacher_epoch")
    assert epoch.choices == (2, 5)
    asked = {e.point.get("labels.teacher_epoch") for e in study.evaluations()}
    assert asked == {None, 2, 5}
    every = search("teacher.epochs=9", f"{SPACE}labels.teacher_epoch={{int: [3, 8]}}")
    assert {e.point["labels.teacher_epoch"] for e in every.evaluations() if e.teacher} == {3, 4, 5, 6, 7, 8}


def test_a_later_count_replaces_its_rival(search: Callable[..., StudySpec]) -> None:
    study = search(f"{SPACE}train.epochs={{int: [1, 5]}}")
    assert {e.point.get("train.epochs") for e in study.evaluations()} == {1, 5}
    assert all("train.steps" not in e.point for e in study.evaluations())
