"""Labels: each transform's formula, the contract of label kinds, codecs and stored logits."""

from __future__ import annotations

import inspect
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raydc.labels import codecs, transforms
from raydc.labels.kinds import soft
from raydc.labels.logits_file import read_logits, write_logits
from raydc.labels.softening import Softening
from raydc.spec import catalog
from raydc.spec.catalog import LabelKind
from raydc.testing.label_contract import GivenInputs


def logits(networks: int = 1, count: int = 6, classes: int = 5) -> torch.Tensor:
    return torch.randn(networks, count, classes, generator=torch.Generator().manual_seed(0)) * 3


def given(networks: int = 1) -> GivenInputs:
    brought = torch.softmax(logits()[0], 1)
    return GivenInputs(torch.arange(6) % 5, 5, logits(networks), soft_labels=brought)


VIEW_NEEDS = {"view_logits", "labelled_views"}
IMAGE_KINDS = [kind for kind in catalog.LABELS if VIEW_NEEDS.isdisjoint(need.what for need in kind.needs)]
"""Kinds that label the images themselves; kinds of views are in test_views.py and test_replayed.py."""


def arguments(kind: LabelKind) -> dict[str, Any]:
    """What the function of a kind is called with, at the defaults."""
    return {key.name.removeprefix("labels."): key.default for key in kind.keys}


@pytest.mark.parametrize("kind", IMAGE_KINDS, ids=lambda k: k.name)
def test_targets_are_distributions_of_the_right_shape(kind: LabelKind) -> None:
    made = kind.load()(given(), **arguments(kind))
    p = made.source.targets.probabilities
    assert p.shape == (6, 5)
    assert (p >= 0).all()
    torch.testing.assert_close(p.sum(1), torch.ones(6), atol=2e-3, rtol=0)
    torch.testing.assert_close(made.source.targets.classes.argmax(1), given().labels)
    assert made.labels_bytes > 0


@pytest.mark.parametrize("kind", list(catalog.LABELS), ids=lambda k: k.name)
def test_declared_keys_are_the_functions_arguments(kind: LabelKind) -> None:
    names = [n for n in inspect.signature(kind.load()).parameters if n != "inputs"]
    if names == ["keys"]:
        names = [field.name for field in fields(Softening)]
    assert sorted(names) == sorted(arguments(kind))


@pytest.mark.parametrize("kind", [k for k in IMAGE_KINDS if k.differentiable], ids=lambda k: k.name)
def test_gradients_reach_what_labels_are_made_of(kind: LabelKind) -> None:
    plain = given()
    source = "logits" if kind.offers_logits else "soft_labels"
    leaf = plain.given[source].clone().requires_grad_(True)
    changed = {"logits": plain.given["logits"], "soft_labels": plain.given["soft_labels"], source: leaf}
    made = kind.load()(GivenInputs(plain.labels, 5, **changed), **arguments(kind))
    weights = torch.arange(5.0)
    (gradient,) = torch.autograd.grad((made.source.targets.probabilities * weights).sum(), leaf)
    p = torch.softmax(logits()[0], 1)
    softmax = (p * (weights - (p @ weights)[:, None]))[None]
    expected = softmax if kind.offers_logits else weights.expand(6, 5)
    torch.testing.assert_close(gradient, expected, atol=5e-3, rtol=5e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", IMAGE_KINDS, ids=lambda k: k.name)
def test_targets_are_equal_on_every_device(kind: LabelKind) -> None:
    here = given()
    brought = here.given["soft_labels"].cuda()
    there = GivenInputs(here.labels.cuda(), 5, here.given["logits"].cuda(), soft_labels=brought)
    one, other = (kind.load()(i, **arguments(kind)).source.targets.probabilities for i in (here, there))
    torch.testing.assert_close(other.cpu(), one, atol=1e-6, rtol=0)


def test_temperature_divides_logits() -> None:
    made = soft(given(), temperature=4.0, codec="fp32")
    expected = torch.exp(logits()[0] / 4) / torch.exp(logits()[0] / 4).sum(1, keepdim=True)
    torch.testing.assert_close(made.source.targets.probabilities, expected)


def test_an_ensemble_is_the_mean_of_logits_not_of_probabilities() -> None:
    made = soft(given(3), temperature=2.0, codec="fp32")
    torch.testing.assert_close(made.source.targets.probabilities, torch.softmax(logits(3).mean(0) / 2, 1))


def test_top_k_keeps_the_largest_and_the_mass_is_lost_unless_renormalised() -> None:
    p = transforms.soften(logits()[0], 1.0)
    kept = transforms.top_k(p, 2)
    assert ((kept > 0).sum(1) == 2).all()
    torch.testing.assert_close(kept.sum(1), p.topk(2, 1).values.sum(1))
    torch.testing.assert_close(transforms.renormalise(kept).sum(1), torch.ones(6))
    assert torch.equal(transforms.top_k(p, 5), p)


def test_swap_exchanges_one_rank_with_the_smallest() -> None:
    p = transforms.soften(logits()[0], 1.0)
    for rank in range(1, 6):
        swapped = transforms.swap_rank(p, rank)
        for row, other in zip(p, swapped, strict=True):
            order = row.argsort(descending=True)
            expected = row.clone()
            expected[order[rank - 1]], expected[order[-1]] = row[order[-1]], row[order[rank - 1]]
            torch.testing.assert_close(other, expected)
    assert torch.equal(transforms.swap_rank(p, 5), p)


def test_drop_class_spares_the_class_itself() -> None:
    p = transforms.soften(logits()[0], 1.0)
    labels = given().labels
    dropped = transforms.drop_class(p, labels, 2)
    assert (dropped[labels != 2, 2] == 0).all()
    assert torch.equal(dropped[labels == 2], p[labels == 2])
    others = [c for c in range(5) if c != 2]
    assert torch.equal(dropped[:, others], p[:, others])


def test_transforms_leave_their_input_alone() -> None:
    p = transforms.soften(logits()[0], 1.0)
    before = p.clone()
    for change in (
        lambda: transforms.drop_class(p, given().labels, 1),
        lambda: transforms.swap_rank(p, 1),
        lambda: transforms.top_k(p, 2),
        lambda: transforms.renormalise(p),
    ):
        change()
        assert torch.equal(p, before)


def test_sizes_are_as_the_design_counts_them() -> None:
    hard = catalog.LABELS["hard"].load()(given())
    assert hard.labels_bytes == 6
    assert soft(given(), temperature=1.0).labels_bytes == 6 * 2 * 5
    assert soft(given(), temperature=1.0, codec="fp32").labels_bytes == 6 * 4 * 5
    assert soft(given(), temperature=1.0, top_k=1).labels_bytes == 6 * 4
    assert codecs.hard_bytes(257) == 2
    assert codecs.record_bytes("fp16", 1000) == 2000


@pytest.mark.parametrize(
    ("kind", "keys", "record"),
    [
        ("hard", {}, 2),
        ("smooth", {"smoothing": 0.1}, 2),
        ("stored", {}, 2 * 300),
        ("soft", {"temperature": 1.0}, 2 * 300),
        ("soft", {"temperature": 1.0, "codec": "fp32"}, 4 * 300),
        ("soft", {"temperature": 1.0, "codec": "q8"}, 300 + 4),
        ("soft", {"temperature": 1.0, "codec": "q4"}, 150 + 4),
        ("soft", {"temperature": 1.0, "top_k": 10}, 4 * 10),
        ("soft", {"temperature": 1.0, "store_top_k": 10}, 4 * 10),
        ("soft", {"temperature": 1.0, "codec": "q8", "store_top_k": 10}, 3 * 10 + 4),
        ("soft", {"temperature": 1.0, "top_k": 290}, 2 * 300),
    ],
)
def test_a_label_of_300_classes_takes_its_record(kind: str, keys: dict[str, Any], record: int) -> None:
    said = logits(classes=300)
    inputs = GivenInputs(torch.arange(6), 300, said, soft_labels=torch.softmax(said[0], 1))
    assert catalog.LABELS[kind].load()(inputs, **keys).labels_bytes == 6 * record


def test_fp16_loses_little() -> None:
    full = soft(given(), temperature=1.0, codec="fp32").source.targets.probabilities
    half = soft(given(), temperature=1.0, codec="fp16").source.targets.probabilities
    assert 0 < (full - half).abs().max() < 2e-3


def test_stored_logits_are_read_without_a_copy_and_cannot_be_damaged(tmp_path: Path) -> None:
    said = logits()[0].numpy()
    write_logits(tmp_path, said)
    read = read_logits(tmp_path)
    np.testing.assert_array_equal(read, said)
    assert not read.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        read[0, 0] = 1.0


def test_smoothing_spreads_mass_over_all_classes() -> None:
    made = catalog.LABELS["smooth"].load()(given(), smoothing=0.1)
    expected = 0.9 * torch.eye(5)[given().labels] + 0.02
    torch.testing.assert_close(made.source.targets.probabilities, expected)
    assert made.labels_bytes == 6
