"""A kind of labels from outside keeps the contract as one file, and the contract finds what is wrong."""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from raydc.errors import InputError
from raydc.labels.inputs import LabelInputs, LabelOutputs
from raydc.labels.kinds import hard, soft
from raydc.spec import catalog
from raydc.spec.catalog import LabelKind, Need
from raydc.spec.label_kinds import LOGITS, SOFTENING_KEYS
from raydc.spec.plan import Plan
from raydc.spec.registry import Registry
from raydc.spec.study import StudySpec
from raydc.testing import label_contract as contract
from raydc.training.targets import StaticTargets
from raydc.worker.evaluate import attempt
from raydc.worker.workbench import Workbench

# --- a kind from outside: one function and one entry ----------------------------------------------


PAGE = Path(__file__).parents[2] / "docs" / "plugins.md"


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry[LabelKind]:
    """The registry of label kinds; what a test adds goes with it."""
    copied: Registry[LabelKind] = Registry("label kind")
    for known in catalog.LABELS:
        copied.add(known)
    monkeypatch.setattr(catalog, "LABELS", copied)
    return copied


@pytest.fixture
def blended(registry: Registry[LabelKind], monkeypatch: pytest.MonkeyPatch) -> LabelKind:
    """The plugin that docs/plugins.md shows."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (code,) = (block for block in blocks if "LABELS.add" in block)
    module = types.ModuleType("blended")
    monkeypatch.setitem(sys.modules, "blended", module)
    exec(code, vars(module))
    return registry["blended"]


@pytest.mark.parametrize("check", contract.CHECKS, ids=lambda c: c.__name__)
def test_a_kind_from_outside_keeps_it(
    check: Callable[[LabelKind, Path], None], blended: LabelKind, tmp_path: Path
) -> None:
    check(blended, tmp_path)


@pytest.mark.usefixtures("blended")
def test_a_kind_from_outside_is_planned_and_trained(
    small: Callable[..., StudySpec],
    ready: Callable[[StudySpec], Plan],
    bench: Workbench,
) -> None:
    study = small("base.labels={kind: blended}", "grid.labels.trust=[0, 1]")
    plan = ready(study)
    assert (len(plan.evaluations), len(plan.passes), len(plan.trajectories)) == (2, 1, 1)
    rows = [attempt(one, bench, study="small") for one in plan.evaluations]
    assert [row["status"] for row in rows] == ["finished"] * 2
    assert [row["labels_bytes"] for row in rows] == [4 * 20 * 10] * 2
    assert rows[0]["test_loss"] != rows[1]["test_loss"]
    assert all(row["teacher_test_acc"] > 0 and row["labels_seconds"] > 0 for row in rows)


def undeclared(inputs: LabelInputs) -> LabelOutputs:
    inputs.logits()
    return hard(inputs)


def test_a_kind_that_asks_for_what_it_does_not_declare_fails_with_its_reason(
    registry: Registry[LabelKind],
    small: Callable[..., StudySpec],
    ready: Callable[[StudySpec], Plan],
    bench: Workbench,
) -> None:
    registry.add(LabelKind("undeclared", f"{__name__}:undeclared", "asks too much", soft=False))
    (one,) = ready(small("base.labels={kind: undeclared}")).evaluations
    row = attempt(one, bench, study="small")
    assert row["status"] == "failed"
    assert row["error"] == (
        "EvaluationError: the label kind 'undeclared' asks for logits, but its entry does not declare it; "
        "add Need('logits') to its needs"
    )


def test_an_entry_with_needs_that_cannot_be_is_refused() -> None:
    soft, labels = replace(catalog.LABELS["soft"], name="other"), Registry[LabelKind]("label kind")
    with pytest.raises(InputError, match=r"has needs 'logit', but must .*; did you mean logits\?"):
        labels.add(replace(soft, needs=(Need("logit"),)))
    with pytest.raises(InputError, match="needs logits and view_logits, but a teacher labels either"):
        labels.add(replace(soft, needs=(LOGITS, Need("view_logits"))))


# --- the contract finds what is wrong -------------------------------------------------------------


def too_much(inputs: LabelInputs) -> LabelOutputs:
    made = hard(inputs)
    targets = made.source.targets
    return replace(made, source=StaticTargets(replace(targets, probabilities=2 * targets.probabilities)))


def free(inputs: LabelInputs) -> LabelOutputs:
    return replace(hard(inputs), labels_bytes=0)


def random_mass(inputs: LabelInputs) -> LabelOutputs:
    targets = hard(inputs).source.targets
    p = torch.softmax(torch.randn(targets.classes.shape), 1)
    return LabelOutputs(StaticTargets(replace(targets, probabilities=p)), 1)


def anything(inputs: LabelInputs, **_: object) -> LabelOutputs:
    return hard(inputs)


def cost_free(inputs: LabelInputs, **keys: object) -> LabelOutputs:
    return LabelOutputs(soft(inputs, **keys).source, 2 * len(inputs.labels))


def mixed_up(inputs: LabelInputs, **keys: object) -> LabelOutputs:
    with torch.no_grad():
        return soft(inputs, **keys)


@pytest.mark.parametrize(
    ("function", "check", "entry", "found"),
    [
        ("too_much", contract.check_targets, {"soft": False}, "mass above 1"),
        ("hard", contract.check_declared_facts, {}, "soft=True"),
        (
            "soft",
            contract.check_declared_facts,
            {"keys": SOFTENING_KEYS, "needs": (LOGITS,)},
            "offers_logits=False",
        ),
        (
            "mixed_up",
            contract.check_declared_facts,
            {"keys": SOFTENING_KEYS, "needs": (LOGITS,), "offers_logits": True, "differentiable": True},
            "no gradient",
        ),
        ("hard", contract.check_needs, {"soft": False, "needs": (LOGITS,)}, "its function does not use it"),
        ("undeclared", contract.check_needs, {"soft": False}, "logits is requested, but was not declared"),
        ("anything", contract.check_needs, {"soft": False}, "keyword argument"),
        ("free", contract.check_costs, {"soft": False}, r"bytes of 4 and 8 images: \[0, 0\]"),
        (
            "cost_free",
            contract.check_costs,
            {"keys": SOFTENING_KEYS, "needs": (LOGITS,)},
            "the cost is LabelCost",
        ),
        ("random_mass", contract.check_repeats, {}, "probabilities differ"),
    ],
)
def test_a_kind_that_breaks_the_contract_is_found(
    function: str,
    check: Callable[[LabelKind, Path], None],
    entry: dict[str, object],
    found: str,
    registry: Registry[LabelKind],
    tmp_path: Path,
) -> None:
    kind = LabelKind("broken", f"{__name__}:{function}", "breaks the contract", **entry)
    registry.add(kind)
    with pytest.raises(AssertionError, match=found):
        check(kind, tmp_path)
