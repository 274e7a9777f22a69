"""Recipes: every value is one that its key allows, is used where it applies, and is that of its source."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from raydc.spec import catalog
from raydc.spec.catalog import RecipeEntry
from raydc.spec.plan import Plan
from raydc.spec.point import point_grammar
from raydc.spec.study import StudySpec, parse_study
from raydc.worker.evaluate import evaluate
from raydc.worker.workbench import Workbench

every_recipe = pytest.mark.parametrize("recipe", list(catalog.RECIPES), ids=lambda recipe: recipe.name)


def study(recipe: str, labels: str, *settings: str) -> StudySpec:
    text = f"""
name: recipes
dataset: digits
teacher: {{arch: convnet-d2-w8, epochs: 1, batch_size: 64, augment: none}}
base:
  images: {{method: random, ipc: 2}}
  labels: {labels}
  student: {{arch: convnet-d2-w8}}
  train: {{recipe: {recipe}}}
"""
    return parse_study(text, "f", settings=settings)


@every_recipe
def test_every_value_is_allowed_and_used(recipe: RecipeEntry) -> None:
    grammar = point_grammar()
    for name, value in recipe.values.items():
        assert grammar.keys[name].cast(value) == value
    learns = {"ce": "{kind: hard}", "mse_ce": "{kind: soft}"}.get(recipe.values["train.loss"])
    kinds = [learns] if learns else ["{kind: per_view}", "{kind: soft}"]
    for kind in kinds:
        (one,) = study(recipe.name, kind).evaluations()
        for name, value in recipe.values.items():
            if name != "train.loss" or value != "ce":
                assert one.point[name] == value


@every_recipe
def test_a_recipe_names_its_paper_and_its_code(recipe: RecipeEntry) -> None:
    paper, _, code = recipe.path.partition("; ")
    assert paper.startswith("arXiv ")
    assert "/" in code


def test_soft_labels_bring_their_temperature_and_hard_labels_none() -> None:
    (soft,) = study("standard-soft", "{kind: per_view}").evaluations()
    assert soft.point["labels.temperature"] == 20
    (given,) = study("standard-soft", "{kind: per_view, temperature: 4}").evaluations()
    assert given.point["labels.temperature"] == 4
    (hard,) = study("standard-hard", "{kind: hard}").evaluations()
    assert not any(name.startswith("labels.temp") for name in hard.point)


ADAMW = {"optimizer": "adamw", "lr": 0.001, "weight_decay": 0.01, "schedule": "cosine", "epochs": 300}
PUBLISHED: dict[str, dict[str, Any]] = {
    # arXiv 2502.06434, standard_soft_config.yaml and standard_hard_config.yaml
    "standard-soft": {**ADAMW, "batch_size": 128, "loss": "kl", "augment": ("rrc", "flip", "cutmix")},
    "standard-hard": {**ADAMW, "batch_size": 128, "loss": "ce", "augment": ("rrc", "flip")},
    "standard-hard-sgd": {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4},
    # VILA-Lab/SRe2L
    "sre2l": {**ADAMW, "batch_size": 1024},
    "cda": {**ADAMW, "batch_size": 128},
    "sre2l-tiny": {"lr": 0.2, "warmup_epochs": 5, "epochs": 100, "batch_size": 256, "loss": "kl_t2"},
    "sre2l-cifar": {**ADAMW, "epochs": 400, "batch_size": 128, "mixup_alpha": 0.8},
    # LINs-lab/RDED
    "rded": {**ADAMW, "schedule": "half-cosine", "crop_scale": (0.5, 1.0)},
    # haizhongzheng/Coverage-centric-coreset-selection, PatrickZH/DeepCore
    "ccs": {"lr": 0.1, "nesterov": True, "weight_decay": 5e-4, "steps": 40_000, "batch_size": 256},
    "deepcore": {"lr": 0.1, "nesterov": True, "weight_decay": 5e-4, "epochs": 200},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_values_are_those_of_the_source(name: str) -> None:
    values = catalog.RECIPES[name].values
    for key, value in PUBLISHED[name].items():
        assert values[f"train.{key}"] == value


@pytest.mark.parametrize("name", ["standard-soft", "rded", "sre2l-tiny"])
def test_a_student_is_trained_by_it(name: str, ready: Callable[[StudySpec], Plan], bench: Workbench) -> None:
    images = "base.images={method: rded, ipc: 2, crops: 2, mipc: 20}"
    plan = ready(study(name, "{kind: per_view}", images, "base.train.epochs=6"))
    measured = evaluate(plan.evaluations[0], bench)
    assert measured.steps == 6
    assert 0 < measured.test_acc < 1


def test_a_scorer_by_a_recipe() -> None:
    settings = ("scorer={arch: convnet-d2-w8, recipe: ccs-scorer}", "base.images.method=ccs")
    (one,) = study("ccs", "{kind: hard}", *settings).evaluations()
    assert one.scorer is not None
    assert one.scorer.recipe.nesterov
    assert one.scorer.epochs == 200
