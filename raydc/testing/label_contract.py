"""The contract of label kinds, including those of plugins, for each setting of their keys.

Each `check_*` takes an entry and an empty folder, and raises `AssertionError` with the problem.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from raydc.augmentation.views import View
from raydc.labels.fkd import FkdBatch, write_batch
from raydc.labels.inputs import LabelCost, LabelOutputs
from raydc.labels.logits_file import write_logits
from raydc.labels.replayed import Replayed
from raydc.labels.views import ViewLogits
from raydc.spec.catalog import LabelKind
from raydc.spec.keys import Choice, Flag, Key
from raydc.spec.point import point_grammar, resolve
from raydc.store.artifact import get
from raydc.store.local import LocalStore
from raydc.training.losses import Targets
from raydc.training.targets import ViewTable

IMAGES, CLASSES, NETWORKS, EPOCHS, BATCH = 6, 5, 2, 2, 4
"""A set of six images, so that the batches have four and two images."""
COST = LabelCost(seconds=3.0, wait_seconds=0.5, teacher_test_acc=0.75)
COSTLY = {"logits", "view_logits", "learned"}
"""Needs that have a cost."""
Point = Mapping[str, Any]


class GivenInputs:
    """`raydc.labels.inputs.LabelInputs` with given values; records which of them are requested."""

    def __init__(
        self,
        labels: Tensor,
        classes: int,
        logits: Tensor | None = None,
        *,
        soft_labels: Tensor | None = None,
        views: ViewLogits | None = None,
        replayed: Replayed | None = None,
    ) -> None:
        self.labels = labels
        self.classes = classes
        self.given = {
            "logits": logits,
            "view_logits": views,
            "soft_labels": soft_labels,
            "labelled_views": replayed,
            "learned": soft_labels,
        }
        self.requested: set[str] = set()

    def _take(self, need: str) -> Any:
        self.requested.add(need)
        assert self.given[need] is not None, f"{need} is requested, but was not declared"
        return self.given[need]

    def logits(self) -> tuple[Tensor, LabelCost]:
        return self._take("logits"), COST

    def view_logits(self) -> tuple[ViewLogits, LabelCost]:
        return self._take("view_logits"), COST

    def soft_labels(self) -> Tensor:
        return self._take("soft_labels")

    def labelled_views(self) -> tuple[Replayed, int]:
        replayed = self._take("labelled_views")
        return replayed, replayed.rows(replayed.folder.steps)

    def learned(self) -> tuple[Tensor, LabelCost]:
        return self._take("learned"), COST


def random_logits(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)) * 3


def batches_of(images: int) -> list[tuple[int, int, Tensor]]:
    """(epoch, batch, images [B]) of the views of a student."""
    rows = torch.arange(images).split(BATCH)
    return [(epoch, batch, index) for epoch in range(EPOCHS) for batch, index in enumerate(rows)]


def table_of_views(folder: Path, images: int) -> ViewLogits:
    """Logits of two networks for all views."""
    store, steps = LocalStore(folder), len(batches_of(images))
    tables = []
    for network in range(NETWORKS):
        logits = random_logits(NETWORKS, EPOCHS * images, CLASSES)[network]
        with store.draft("logits") as draft:
            write_logits(draft.folder, logits.numpy())
            draft.commit(f"views-{network}", stop=steps, size=float(logits.abs().max()))
        tables.append([get(store, "logits", f"views-{network}")])
    return ViewLogits(tables, images, BATCH, steps, CLASSES)


def folder_of_views(folder: Path, images: int) -> Replayed:
    """FKD files of the same views, without crops and mixing."""
    for epoch, batch, index in batches_of(images):
        count = len(index)
        (folder / f"epoch_{epoch}").mkdir(parents=True, exist_ok=True)
        logits = random_logits(EPOCHS, images, CLASSES)[epoch, index]
        whole = torch.tensor([0.0, 0.0, 1.0, 1.0]).repeat(count, 1)
        write_batch(
            folder / f"epoch_{epoch}" / f"batch_{batch}.tar",
            FkdBatch(whole, torch.zeros(count).bool(), logits),
        )
    return Replayed(str(folder), images, CLASSES, 8, 42)


def inputs_at(kind: LabelKind, point: Point, folder: Path, images: int = IMAGES) -> GivenInputs:
    """The inputs that `kind` may request at a point."""
    needs = kind.needs_at(point)
    soft_labels = torch.softmax(random_logits(images, CLASSES), 1)
    return GivenInputs(
        torch.arange(images) % CLASSES,
        CLASSES,
        random_logits(NETWORKS, images, CLASSES) if "logits" in needs else None,
        soft_labels=soft_labels if needs & {"soft_labels", "learned"} else None,
        views=table_of_views(folder / f"store-{images}", images) if "view_logits" in needs else None,
        replayed=folder_of_views(folder / f"fkd-{images}", images) if "labelled_views" in needs else None,
    )


def point_of(kind: LabelKind, chosen: Point | None = None) -> dict[str, Any]:
    """A resolved point that chooses `kind`, with `chosen` values and otherwise the defaults."""
    given = {"student.arch": "convnet-d2-w8", "images.ipc": 1, "labels.kind": kind.name, **(chosen or {})}
    if any(key.name == "labels.path" for key in kind.all_keys):
        given["labels.path"] = "labels"
    if any(need.what == "labelled_views" for need in kind.needs):
        given["train.augment"] = ()
    return resolve(point_grammar(), given)


def other_values(key: Key) -> Iterator[Any]:
    """Values of a key that differ from its default."""
    if isinstance(key.kind, Choice):
        values: list[Any] = list(key.kind.options())
    elif isinstance(key.kind, Flag):
        values = [True, False]
    else:
        values = [0.5, 1, 2]
    for value in values:
        try:
            if (cast := key.cast(value)) != key.default:
                yield cast
        except ValueError:
            continue


def points_of(kind: LabelKind) -> list[dict[str, Any]]:
    """The point of the defaults, and one point for each other value of each key of the function."""
    return [
        point_of(kind),
        *(point_of(kind, {key.name: value}) for key in kind.keys for value in other_values(key)),
    ]


def make(kind: LabelKind, point: Point, inputs: GivenInputs) -> LabelOutputs:
    return kind.load()(inputs, **kind.arguments(point))


def targets_by_view(made: LabelOutputs, images: int = IMAGES) -> list[tuple[Tensor, Targets]]:
    """(images of the batch, its targets) for each view of a student."""
    found = []
    for epoch, batch, index in batches_of(images):
        if made.replayed is not None:
            index = made.replayed.index(epoch, batch)
        found.append((index, made.source.at(View(torch.zeros(len(index), 1, 8, 8), index), epoch, batch)))
    return found


def check_targets(kind: LabelKind, folder: Path) -> None:
    """Targets are distributions over the classes; a key may remove mass, but the defaults may not."""
    for number, point in enumerate(points_of(kind)):
        inputs = inputs_at(kind, point, folder / str(number))
        for index, targets in targets_by_view(make(kind, point, inputs)):
            p, shape = targets.probabilities, (len(index), CLASSES)
            assert p.shape == targets.classes.shape == shape, f"{point}: {p.shape} instead of {shape}"
            assert p.dtype == targets.classes.dtype == torch.float32, f"{point}: {p.dtype} instead of float32"
            assert p.isfinite().all(), f"{point}: some probability is not finite"
            assert (p >= 0).all(), f"{point}: some probability is below 0"
            assert (p.sum(1) <= 1 + 2e-3).all(), f"{point}: some row has a mass above 1"
            if number == 0:
                assert (p.sum(1) >= 1 - 2e-3).all(), f"{point}: some row has a mass below 1 at the defaults"
            one_hot = torch.eye(CLASSES)[inputs.labels[index]]
            assert torch.equal(targets.classes, one_hot), f"{point}: the classes are not those of the images"


def check_declared_facts(kind: LabelKind, folder: Path) -> None:
    """`soft`, `offers_logits` and `differentiable` describe the targets correctly."""
    point = point_of(kind)
    inputs = inputs_at(kind, point, folder)
    leaves = [
        value.requires_grad_(kind.differentiable)
        for need, value in inputs.given.items()
        if isinstance(value, Tensor) and need in kind.needs_at(point)
    ]
    targets = [part for _, part in targets_by_view(make(kind, point, inputs))]
    soft = any(not torch.equal(part.probabilities, part.classes) for part in targets)
    assert soft == kind.soft, f"the entry has soft={kind.soft}, but its targets differ"
    for part in targets:
        assert part.temperature > 0, f"the temperature is {part.temperature}"
        offers = part.logits is not None
        assert offers == kind.offers_logits, (
            f"the entry has offers_logits={kind.offers_logits}, but its targets differ"
        )
        if part.logits is not None:
            assert part.logits.shape == part.probabilities.shape, f"logits of shape {part.logits.shape}"
            assert part.logits.isfinite().all(), "some logit is not finite"
    if kind.differentiable:
        weights = torch.arange(float(CLASSES))
        total = torch.stack([(part.probabilities * weights).sum() for part in targets]).sum()
        assert total.requires_grad, "the entry has differentiable=True, but the targets have no gradient"
        for gradient in torch.autograd.grad(total, leaves):
            assert gradient.isfinite().all(), "some gradient is not finite"
            assert gradient.any(), "the gradient is 0"


def check_needs(kind: LabelKind, folder: Path) -> None:
    """It requests all inputs that it declares without a condition, and no others (see `GivenInputs`)."""
    for number, point in enumerate(points_of(kind)):
        inputs = inputs_at(kind, point, folder / str(number))
        make(kind, point, inputs)
        unused = {need.what for need in kind.needs if not need.where} - inputs.requested
        assert not unused, f"{point}: the entry declares {unused}, but its function does not use it"
    point = point_of(kind)
    try:
        kind.load()(inputs_at(kind, point, folder / "unknown"), **kind.arguments(point), no_such_key=1)
    except TypeError:
        return
    raise AssertionError("its function accepts a keyword argument that its entry does not declare")


def check_costs(kind: LabelKind, folder: Path) -> None:
    """Bytes are counted and grow with the set; the cost of the labels is passed on."""
    for number, point in enumerate(points_of(kind)):
        sizes = []
        for images in (BATCH, 2 * BATCH):
            inputs = inputs_at(kind, point, folder / str(number), images)
            made = make(kind, point, inputs)
            sizes.append(made.labels_bytes)
            cost = COST if inputs.requested & COSTLY else LabelCost()
            assert made.cost == cost, f"{point}: the cost is {made.cost}, but {cost} was given"
        assert all(isinstance(size, int) for size in sizes), f"bytes are {sizes}, not whole numbers"
        assert 0 < sizes[0] < sizes[1] <= 2 * sizes[0], f"bytes of {BATCH} and {2 * BATCH} images: {sizes}"


def check_repeats(kind: LabelKind, folder: Path) -> None:
    """Equal inputs give equal targets, independent of global random state; inputs are not modified."""
    for number, point in enumerate(points_of(kind)):
        inputs = inputs_at(kind, point, folder / str(number))
        before = {name: v.clone() for name, v in inputs.given.items() if isinstance(v, Tensor)}
        runs = []
        for seed in (1, 2):
            random.seed(seed)
            np.random.seed(seed)
            torch.manual_seed(seed)
            made = make(kind, point, inputs)
            runs.append(targets_by_view(made))
            moved = made.source.to(torch.device("cpu"))
            runs.append(targets_by_view(LabelOutputs(moved, made.labels_bytes, replayed=made.replayed)))
        for run in runs[1:]:
            for (_, one), (_, other) in zip(runs[0], run, strict=True):
                for name in ("probabilities", "classes", "logits", "temperature"):
                    _check_equal(getattr(one, name), getattr(other, name), name)
        for name, value in before.items():
            _check_equal(value, inputs.given[name], name)


def check_tables(kind: LabelKind, folder: Path) -> None:
    """Targets of all views at once (`ViewTable`) equal those of the separate views."""
    for number, point in enumerate(points_of(kind)):
        made = make(kind, point, inputs_at(kind, point, folder / str(number)))
        if not isinstance(made.source, ViewTable) or (whole := made.source.softened()) is None:
            continue
        for (epoch, batch, _), (_, targets) in zip(batches_of(IMAGES), targets_by_view(made), strict=True):
            first, end = made.source.span(epoch, batch)
            torch.testing.assert_close(whole[first:end], targets.probabilities)
            assert targets.temperature == made.source.temperature, "the table has another temperature"


CHECKS: tuple[Callable[[LabelKind, Path], None], ...] = (
    check_targets,
    check_declared_facts,
    check_needs,
    check_costs,
    check_repeats,
    check_tables,
)


def _check_equal(one: Any, other: Any, name: str) -> None:
    equal = torch.equal(one, other) if isinstance(one, Tensor) else one == other
    assert equal, f"{name} differ"
