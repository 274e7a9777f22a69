"""The contract of recipes: values that are valid in a study file, and their source."""

from __future__ import annotations

from raydc.spec.catalog import LABELS, LOSSES, RECIPES, RecipeEntry
from raydc.spec.point import cast, point_grammar, resolve
from raydc.testing.parts import each

every_recipe = each("recipe", RECIPES)


@every_recipe
def test_its_values_are_valid_in_a_study_file(recipe: RecipeEntry) -> None:
    grammar = point_grammar()
    for key, value in recipe.values.items():
        assert cast(grammar, key, value) == value


@every_recipe
def test_a_student_can_be_trained_by_it_alone(recipe: RecipeEntry) -> None:
    loss = recipe.values.get("train.loss", "ce")
    kind = "hard" if not LOSSES[str(loss)].soft else "soft"
    assert kind in LABELS
    given = {"student.arch": "convnet-d2-w8", "images.ipc": 1, "labels.kind": kind}
    point = resolve(point_grammar(), {**given, "train.recipe": recipe.name})
    assert point["train.recipe"] == recipe.name
    assert ("train.epochs" in point) != ("train.steps" in point)


@every_recipe
def test_it_names_its_source(recipe: RecipeEntry) -> None:
    assert recipe.path.strip()
