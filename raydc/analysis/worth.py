"""What a soft label is worth: the number of hard-labelled images that reach the same accuracy.

For each group of otherwise equal points, the law fitted to the hard labels is inverted at the accuracy of the
soft labels at an IPC. Teacher epoch, temperature and other label keys are chosen for each IPC by
validation accuracy; test accuracy is reported. Beyond the largest IPC of the hard labels the answer is `> N`:
a law is not extrapolated outside its data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from raydc.analysis.curves import Curve, curves, finished, group, is_label_key, label_of, varying_keys
from raydc.analysis.intervals import CONFIDENCE, Mean, mean_of
from raydc.analysis.laws import DRAWS, Law, NoLaw, fit
from raydc.errors import InputError, one_of
from raydc.spec.result import Row


@dataclass(frozen=True)
class Worth:
    """Soft labels at one IPC, against hard labels of the same group."""

    group: dict[str, Any]
    """Keys that soft and hard labels share, such as the method."""
    ipc: float
    labels: dict[str, Any]
    """The chosen label keys."""
    chosen_by: str
    """val_acc, or `given` if there was only one choice."""
    soft_acc: Mean
    hard_acc: Mean | None
    """Hard labels at the same IPC; None if they were not evaluated."""
    hard_ipc: float | None
    """IPC of hard labels with the same accuracy; None if unknown or outside the data."""
    low: float | None
    """Lower end of the 95 % interval of `hard_ipc`, inside the data."""
    high: float | None
    """Upper end of the interval; None if it lies beyond the largest IPC of the hard labels."""
    beyond: float | None
    """Largest IPC of the hard labels if the answer or its upper end lies beyond it, else None."""
    note: str
    """The reason if there is no number, else empty."""

    @property
    def ratio(self) -> float | None:
        """Hard-labelled images that one soft-labelled image replaces."""
        return None if self.hard_ipc is None else self.hard_ipc / self.ipc

    def text(self) -> str:
        """`18.2 [15.1, > 20]`, `> 20`, or `-`."""
        if self.beyond is not None and self.hard_ipc is None:
            return f"> {self.beyond:g}"
        if self.hard_ipc is None:
            return "-"
        if self.low is None:
            return f"{self.hard_ipc:.1f}"
        high = f"{self.high:.1f}" if self.high is not None else f"> {self.beyond:g}"
        return f"{self.hard_ipc:.1f} [{self.low:.1f}, {high}]"


def worth(rows: Sequence[Row], seed: int = 0) -> list[Worth]:
    """The worth for every (group, IPC) with soft labels, in order; `InputError` without hard or soft rows."""
    rows = finished(rows)
    hard = [r for r in rows if r.get("labels.kind") == "hard"]
    soft = [r for r in rows if r.get("labels.kind") not in (None, "hard")]
    if not hard or not soft:
        missing = "hard-labelled" if not hard else "soft-labelled"
        raise InputError(f"worth compares hard and soft labels, but there are no {missing} results")
    shared = [key for key in varying_keys(rows, ["images.ipc"]) if not _belongs_to_labels(key, hard)]
    hard_groups = group(hard, shared)
    soft_groups = group(soft, shared)
    if not hard_groups.keys() & soft_groups.keys():
        raise InputError(
            f"worth compares hard and soft labels that agree in {one_of(shared).replace(' or ', ' and ')}, "
            "but no such pair was evaluated; add hard labels to these points of the study"
        )
    found = []
    for values, members in soft_groups.items():
        if values not in hard_groups:
            continue
        hard_curve = curves(hard_groups[values], by=[])[0]
        law = fit(hard_curve, seed=seed)
        key = dict(zip(shared, values, strict=True))
        for (ipc,), at_ipc in sorted(group(members, ["images.ipc"]).items()):
            labels, chosen, chosen_by = choose_labels(at_ipc)
            accuracy = mean_of([r["test_acc"] for r in chosen])
            found.append(_worth(key, float(ipc), labels, chosen_by, accuracy, chosen, hard_curve, law, seed))
    return found


def _belongs_to_labels(key: str, hard: Sequence[Row]) -> bool:
    """Whether a key belongs to the labels: by its name, or because hard labels never have it."""
    return is_label_key(key) or all(row.get(key) is None for row in hard)


def choose_labels(rows: Sequence[Row]) -> tuple[dict[str, Any], list[Row], str]:
    """(label keys, rows, chosen_by) of the labels with the best mean validation accuracy."""
    keys = [key for key in varying_keys(rows) if is_label_key(key)]
    options = group(rows, keys)
    if len(options) == 1:
        values, members = next(iter(options.items()))
        fixed = {k: members[0].get(k) for k in ("labels.teacher_epoch", "labels.temperature")}
        return dict(zip(keys, values, strict=True)) or fixed, members, "given"
    if any(row.get("val_acc") is None for row in rows):
        raise InputError(
            "the label keys of soft labels are chosen by val_acc, which these results do not have; run "
            "the study with dataset.val_fraction above 0"
        )
    values, members = max(options.items(), key=lambda item: float(np.mean([r["val_acc"] for r in item[1]])))
    return dict(zip(keys, values, strict=True)), members, "val_acc"


def _worth(
    key: dict[str, Any],
    ipc: float,
    labels: dict[str, Any],
    chosen_by: str,
    accuracy: Mean,
    chosen: Sequence[Row],
    hard_curve: Curve,
    law: Law | NoLaw,
    seed: int,
) -> Worth:
    places = list(hard_curve.x)
    hard_acc = hard_curve.means_with_intervals()[places.index(ipc)] if ipc in places else None
    largest, smallest = places[-1], places[0]
    common = (key, ipc, labels, chosen_by, accuracy, hard_acc)
    if isinstance(law, NoLaw) and law.inside is not None:
        law = law.inside  # its limit is unknown, but it is only used inside the data
    if isinstance(law, NoLaw):
        note = f"no law for the hard labels: {law.reason}"
        return Worth(*common, hard_ipc=None, low=None, high=None, beyond=None, note=note)
    spread = _mean_draws(accuracy, chosen, seed)
    answer = float(_inverse(law, np.array([accuracy.value]))[0])
    low = high = None
    if len(law.draws) and spread is not None:
        draws = _inverse_draws(law, spread)
        low, high = (
            float(q)
            for q in np.quantile(draws, [0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2], method="nearest")
        )
        low, high = min(low, answer), max(high, answer)
    if answer > largest:
        return Worth(*common, hard_ipc=None, low=None, high=None, beyond=largest, note="")
    if answer < smallest:
        note = f"below the accuracy of {smallest:g} hard-labelled images per class"
        return Worth(*common, hard_ipc=None, low=None, high=None, beyond=None, note=note)
    outside = high is not None and high > largest
    return Worth(
        *common,
        hard_ipc=answer,
        low=None if low is None else max(low, smallest),
        high=None if outside else high,
        beyond=largest if outside else None,
        note="",
    )


def _mean_draws(accuracy: Mean, chosen: Sequence[Row], seed: int) -> np.ndarray | None:
    """Draws of the mean accuracy of the soft labels, from Student's t; None with one replicate."""
    if accuracy.count < 2:
        return None
    error = float(np.std([r["test_acc"] for r in chosen], ddof=1)) / np.sqrt(accuracy.count)
    generator = np.random.Generator(np.random.Philox(seed + 1))
    t = stats.t.rvs(accuracy.count - 1, size=DRAWS, random_state=generator)
    return np.asarray(accuracy.value + error * t)


def _inverse(law: Law, accuracy: np.ndarray) -> np.ndarray:
    assert law.c is not None, "worth reads power laws"
    return _invert(law.a.value, law.b.value, law.c.value, accuracy)


def _inverse_draws(law: Law, accuracy: np.ndarray) -> np.ndarray:
    a, b, c = law.draws[: len(accuracy)].T
    return _invert(a, b, c, accuracy[: len(law.draws)])


def _invert(a: float, b: float, c: float, accuracy: np.ndarray) -> np.ndarray:
    """x with a - b x^-c = accuracy; infinite at or above the limit a."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        gap = np.maximum(np.asarray(a - accuracy, np.float64), 0.0)
        return np.where(gap > 0, (b / gap) ** (1 / np.asarray(c)), np.inf)


def describe(item: Worth) -> str:
    """One sentence, such as `soft labels (...) at IPC 10 are worth 18.2 hard-labelled images`."""
    where = label_of(item.group) if item.group else ""
    start = f"{where}: " if where and where != "all" else ""
    labels = label_of({k: v for k, v in item.labels.items() if v is not None})
    answer = item.text()
    if answer == "-":
        return f"{start}soft labels at IPC {item.ipc:g}: {item.note}"
    return (
        f"{start}{item.ipc:g} soft-labelled images per class ({labels}) do as well as {answer} "
        "hard-labelled ones"
    )
