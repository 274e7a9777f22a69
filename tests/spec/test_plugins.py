"""Plugins: entries are checked when they are loaded, and leave nothing behind when they are refused."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from raydc.errors import EvaluationError, InputError
from raydc.spec import catalog, plugins
from raydc.spec.code import check_code, code_of, text_of
from raydc.spec.registry import Registry

HEAD = """
from raydc.spec.catalog import *
from raydc.spec.keys import Key, Whole

TEXT = "not code"

def code(*given, **keys):
    return given[0]

"""


pytestmark = pytest.mark.usefixtures("own_catalog")


def load(folder: Path, text: str, name: str = "a_plugin") -> Path:
    path = folder / f"{name}.py"
    path.write_text(HEAD + text)
    plugins.use([path])
    return path


def key(name: str) -> str:
    """A method that declares a key."""
    return f'METHODS.add(Method("mine", code, "it", keys=(Key("{name}", Whole(), "it", 1),)))'


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ('METHODS.add(Method("mine", code, "it", needs="scroes"))', "needs 'scroes', but must have"),
        ('METHODS.add(Method("mine", code, "it", needs="scroes"))', "did you mean scores"),
        ('METHODS.add(Method("mine", code, "it", needs="scores", scores=("el3n",)))', "score 'el3n'"),
        ('METHODS.add(Method("random", code, "it"))', "the method 'random' is registered twice"),
        ('METHODS.add(Method("mine", "a_plugin:nothing", "it"))', "but a_plugin has no 'nothing'"),
        ('METHODS.add(Method("mine", "no_module_here:code", "it"))', "there is no module 'no_module_here'"),
        ('METHODS.add(Method("mine", "code", "it"))', "must name its code as package.module:attribute"),
        ('METHODS.add(Method("mine", lambda pool: 0, "it"))', "must name its code"),
        ('METHODS.add(Method("mine", "a_plugin:TEXT", "it"))', "is not a function or a class"),
        ('METHODS.add(Method("my method", code, "it"))', "a name that a study file cannot hold"),
        ('METHODS.add(Method("mine", code, ""))', "must have a summary of one line"),
        (key("train.mine"), "its keys must be images.NAME"),
        (key("images.ipc"), "the key images.ipc is declared twice"),
        (key("images.end"), "declares the key images.end differently than"),
        ('LOSSES.add(Loss("mine", code, "it", needs=("logit",)))', "did you mean logits"),
        ('AUGMENTATIONS.add(Augmentation("mine", code, "it", needs=("grids",)))', "did you mean grid"),
        ('AUGMENTATIONS.add(Augmentation("mine", code, "it", alpha="train.mine_alpha"))', "one of the keys"),
        ('NETWORKS.add(Network("mine", code, "it", pattern="("))', "is not a regular expression"),
        ('OPTIMIZERS.add(Optimizer("mine", code, "it", stacked="a_plugin:missing"))', "has no 'missing'"),
        ('RECIPES.add(RecipeEntry("mine", "here", "it", values={"train.lrr": 1}))', "train.lrr"),
    ],
)
def test_an_entry_that_cannot_be_is_refused_at_once(tmp_path: Path, entry: str, said: str) -> None:
    before = {registry.kind: registry.names() for registry in catalog.REGISTRIES}
    with pytest.raises(InputError) as refused:
        load(tmp_path, entry)
    assert said in str(refused.value)
    assert str(tmp_path / "a_plugin.py") in str(refused.value)
    assert "\n" not in str(refused.value)
    assert {registry.kind: registry.names() for registry in catalog.REGISTRIES} == before


def test_two_plugins_of_one_name(tmp_path: Path) -> None:
    load(tmp_path, 'METHODS.add(Method("mine", code, "it"))')
    with pytest.raises(InputError, match=r"other_plugin\.py: the method 'mine' is registered twice"):
        load(tmp_path, 'METHODS.add(Method("mine", code, "it"))', "other_plugin")


POINT = {
    "images.method": "mine",
    "images.ipc": 1,
    "labels.kind": "hard",
    "student.arch": "convnet-d1-w4",
    "train.augment": ("flip",),
    "train.optimizer": "sgd",
    "train.schedule": "constant",
}
ENTRY = 'METHODS.add(Method("mine", code, "it"{}))'


def code_from(folder: Path, text: str) -> str:
    """The code of the method `mine` of a file with this text."""
    load(folder, text)
    found = code_of(POINT)
    assert list(found) == ["images.method=mine"]
    catalog.METHODS.discard("mine")
    del sys.modules["a_plugin"]
    plugins.forget()
    return found["images.method=mine"]


def test_code_is_that_of_the_file_or_its_stated_version(tmp_path: Path) -> None:
    first = code_from(tmp_path, ENTRY.format(""))
    assert code_from(tmp_path, ENTRY.format("")) == first
    assert code_from(tmp_path, ENTRY.format("") + "  # edited") != first
    stated = code_from(tmp_path, ENTRY.format(', version="1"'))
    assert code_from(tmp_path, ENTRY.format(', version="1"') + "  # edited") == stated
    assert code_from(tmp_path, ENTRY.format(', version="2"')) != stated


def test_code_does_not_depend_on_how_the_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers of a cluster load plugins by paths relative to their folder."""
    absolute = code_from(tmp_path, ENTRY.format(""))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAYDC_PLUGINS", "a_plugin.py")
    plugins.load()
    assert code_of(POINT) == {"images.method=mine": absolute}


def test_parts_of_raydc_have_no_code() -> None:
    assert code_of({**POINT, "images.method": "el2n"}) == {}
    assert all(registry.code(name) is None for registry in catalog.REGISTRIES for name in registry.names())


def test_code_that_changed_since_the_plan_is_refused() -> None:
    check_code({"images.method=mine": "a"}, {"images.method=mine": "a"})
    with pytest.raises(EvaluationError, match=r"images\.method=mine differs from the code"):
        check_code({"images.method=mine": "a"}, {"images.method=mine": "b"})
    assert text_of({"images.method=mine": "a", "train.augment=other": "b"}) == "mine@a+other@b"


def test_options_name_the_files(tmp_path: Path) -> None:
    assert plugins.options() == ""
    path = load(tmp_path, ENTRY.format(""))
    assert plugins.options() == f"--plugin {path} "
    assert os.environ["RAYDC_PLUGINS"] == str(path)


def test_unknown_names_list_what_there_is() -> None:
    with pytest.raises(InputError, match=r"there is no loss 'soft_cd'; choose .*; did you mean soft_ce"):
        catalog.LOSSES["soft_cd"]
    assert isinstance(catalog.LOSSES, Registry)
