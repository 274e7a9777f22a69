"""Figures of what the teachers say: read from the logits in the store, epoch by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raydc.analysis.curves import finished, group, mean_of
from raydc.analysis.labels import LabelFacts, among_others, divergence, label_facts, similarity, softmax
from raydc.data.image_set import CompressedSet
from raydc.labels.logits_file import read_logits, read_together
from raydc.report.figures import Heat, Lines, Marked, series_of
from raydc.spec.result import Row
from raydc.store.artifact import Store

LEARNED = "learned"
"""The label kind whose labels are no teacher's."""
MOST_SETS = 12
"""Sets of one teacher and epoch that are read."""
MOST_EPOCHS = 8
"""Epochs whose probabilities by rank are drawn."""
MOST_CLASSES = 20
"""A larger table of classes could not be read."""


@dataclass(frozen=True)
class LabelledEpoch:
    """What a teacher says of some compressed sets after one epoch."""

    epoch: int
    facts: tuple[LabelFacts, ...]
    """One for each set."""
    probabilities: NDArray[np.float64]
    """[N, C], of all sets."""
    classes: NDArray[np.int64]
    """[N]"""
    val_acc: float
    """Mean validation (else test) accuracy of the students that learn from it."""


def label_figures(rows: Sequence[Row], store: Store) -> tuple[list[Lines], list[Heat]]:
    """Entropy and calibration by epoch, probability by rank, and similar classes, for each teacher."""
    soft = [r for r in finished(rows) if r.get("labels_id") and r.get("labels.teacher_epoch") is not None]
    soft = [r for r in soft if r["labels.kind"] != LEARNED]
    learned = learned_labels(rows, store)
    lines: list[Lines] = []
    heats: list[Heat] = []
    for (teacher, ensemble), members in group(soft, ["labels.teacher", "labels.ensemble"]).items():
        name = "the teacher" if teacher == "teacher" else f"the teacher {teacher}"
        if ensemble not in (None, 1):
            name += f" ({ensemble} networks)"
        if by_epoch := divergences(members, learned, store):
            lines.append(divergence_figure(name, by_epoch))
        epochs = group(members, ["labels.teacher_epoch"])
        said = [s for (epoch,), part in epochs.items() if (s := _said(int(epoch), part, store)) is not None]
        if len(said) > 1:
            lines.append(_by_epoch(name, said))
        if said:
            lines.append(_by_rank(name, said))
            best = max(said, key=lambda s: s.val_acc)
            if best.probabilities.shape[1] <= MOST_CLASSES:
                heats.append(_similar(name, best))
    return lines, heats


def _said(epoch: int, rows: Sequence[Row], store: Store) -> LabelledEpoch | None:
    """What is in the store of one epoch; None if nothing is."""
    facts, probabilities, classes = [], [], []
    for (ids, set_id), _ in list(group(rows, ["labels_id", "set_id"]).items())[:MOST_SETS]:
        one = _spoken(ids, store)
        made = store.find("set", set_id)
        if made is None or one is None:
            continue
        labels = CompressedSet.labels_of(made.folder)
        facts.append(label_facts(one, labels))
        probabilities.append(one)
        classes.append(labels)
    if not facts:
        return None
    accuracy = [r["val_acc"] if r.get("val_acc") is not None else r["test_acc"] for r in rows]
    together = np.concatenate(probabilities), np.concatenate(classes)
    return LabelledEpoch(epoch, tuple(facts), *together, val_acc=float(np.mean(accuracy)))


def _spoken(ids: str, store: Store) -> NDArray[np.float64] | None:
    """What networks together say of a set [N, C], at temperature 1; None if it is not in the store."""
    artifacts = [store.find("logits", name) for name in ids.split("+")]
    if any(artifact is None for artifact in artifacts):
        return None
    return softmax(np.mean(read_together(a.folder for a in artifacts if a is not None), axis=0))


def learned_labels(rows: Sequence[Row], store: Store) -> dict[str, list[NDArray[np.float32]]]:
    """Labels [N, C] that were learnt, by the id of their compressed set, as far as they are in the store."""
    learned = [r for r in finished(rows) if r.get("labels.kind") == LEARNED]
    found: dict[str, list[NDArray[np.float32]]] = {}
    for set_id, labels_id in {(r["set_id"], r["labels_id"]): None for r in learned}:
        if (artifact := store.find("learned", labels_id)) is not None:
            found.setdefault(set_id, []).append(read_logits(artifact.folder))
    return found


def divergences(
    rows: Sequence[Row], learned: Mapping[str, Sequence[NDArray[np.float32]]], store: Store
) -> dict[int, list[float]]:
    """For each teacher epoch how far every set's learned labels are from what the teacher says of it."""
    found: dict[int, list[float]] = {}
    for epoch, ids, set_id in {(r["labels.teacher_epoch"], r["labels_id"], r["set_id"]): None for r in rows}:
        if set_id in learned and (said := _spoken(ids, store)) is not None:
            found.setdefault(int(epoch), []).extend(divergence(one, said) for one in learned[set_id])
    return found


def _by_epoch(teacher: str, said: Sequence[LabelledEpoch]) -> Lines:
    largest = float(np.log(said[0].probabilities.shape[1]))
    measures = {
        "entropy, as part of log C": lambda facts: facts.entropy / largest,
        "largest probability": lambda facts: facts.confidence,
        "largest is at the class": lambda facts: facts.agreement,
        "calibration error": lambda facts: facts.calibration_error,
    }
    epochs = tuple(float(s.epoch) for s in said)
    series = []
    for label, measure in measures.items():
        means = [mean_of([measure(facts) for facts in s.facts]) for s in said]
        series.append(series_of(label, epochs, means))
    return Lines(
        title=f"What {teacher} says, by epoch",
        caption=(
            f"What {teacher} says of the compressed images, at temperature 1; bars are 95 % Student-t "
            f"intervals over up to {MOST_SETS} sets."
        ),
        x_label="teacher epoch",
        y_label="mean over images",
        series=tuple(series),
        log=epochs[0] > 0,
    )


def _by_rank(teacher: str, said: Sequence[LabelledEpoch]) -> Lines:
    chosen = [said[i] for i in np.unique(np.linspace(0, len(said) - 1, MOST_EPOCHS).astype(int))]
    series = []
    for one in chosen:
        means = [mean_of(list(values)) for values in np.transpose([facts.by_rank for facts in one.facts])]
        series.append(series_of(f"epoch {one.epoch}", range(1, len(means) + 1), means))
    return Lines(
        title=f"Probability by rank, {teacher}",
        caption=f"Mean probability that {teacher} gives to the largest class, the second, and so on.",
        x_label="rank",
        y_label="mean probability",
        series=tuple(series),
    )


def _similar(teacher: str, said: LabelledEpoch) -> Heat:
    table = among_others(similarity(said.probabilities, said.classes))
    classes = tuple(range(len(table)))
    return Heat(
        title=f"{teacher}, epoch {said.epoch}",
        caption=(
            f"How {teacher} shares among the other classes (columns) what it does not give to the own class "
            "of an image (rows): mean probabilities in percent, scaled to sum to 100 in each row, after the "
            "epoch whose labels teach best."
        ),
        x_label="class in the label",
        y_label="class of the image",
        x=classes,
        y=classes,
        values=tuple(tuple(None if np.isnan(v) else float(v) for v in row) for row in table),
    )


def divergence_figure(name: str, by_epoch: Mapping[int, Sequence[float]]) -> Lines:
    """Learned labels against those of a teacher, by the teacher's epoch, with the smallest mean marked.

    by_epoch: for each epoch the Jensen-Shannon divergence (nats, from 0 to log 2) of every compressed set's
    learned labels from what `name` says of the same images (arXiv 2406.10485).
    """
    epochs = sorted(by_epoch)
    means = [mean_of(by_epoch[epoch]) for epoch in epochs]
    least = min(range(len(epochs)), key=lambda i: means[i].value)
    places = tuple(float(epoch) for epoch in epochs)
    value = means[least].value
    return Lines(
        title=f"Learned labels against {name}",
        caption=(
            f"Jensen-Shannon divergence of learned labels from what {name} says of the same images after "
            "each epoch, mean over images; bars are 95 % Student-t intervals over compressed sets."
        ),
        x_label="teacher epoch",
        y_label="Jensen-Shannon divergence, nats",
        series=(series_of("learned labels", places, means),),
        log=epochs[0] > 0,
        percent=False,
        marked=Marked("least", (places[least],), (value,), (f"epoch {epochs[least]}",)),
    )
