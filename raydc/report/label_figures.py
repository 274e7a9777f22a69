"""Figures of the teachers' labels at each epoch, read from the logits in the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raydc.analysis.curves import finished, group
from raydc.analysis.intervals import mean_of
from raydc.analysis.labels import LabelFacts, divergence, label_facts, similarity, softmax, without_own_class
from raydc.data.image_set import CompressedSet
from raydc.labels.logits_file import read_logits, read_together
from raydc.report.figures import Heat, Lines, Marked, series_of
from raydc.spec.result import Row
from raydc.store.artifact import Store

LEARNED = "learned"
"""The label kind whose labels do not come from a teacher."""
MOST_SETS = 12
"""Most sets that are read for one teacher and epoch."""
MOST_EPOCHS = 8
"""Most epochs in the figure of probabilities by rank."""
MOST_CLASSES = 20
"""Most classes of a similarity map; a larger one would be unreadable."""


@dataclass(frozen=True)
class LabelledEpoch:
    """A teacher's labels of some compressed sets at one epoch."""

    epoch: int
    facts: tuple[LabelFacts, ...]
    """Label statistics of each set."""
    probabilities: NDArray[np.float64]
    """[N, C], the labels of all sets together."""
    classes: NDArray[np.int64]
    """[N], the true classes."""
    val_acc: float
    """Mean validation accuracy (else test accuracy) of the students trained on these labels."""


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
        labelled = [
            one
            for (epoch,), part in epochs.items()
            if (one := _labelled_epoch(int(epoch), part, store)) is not None
        ]
        if len(labelled) > 1:
            lines.append(_by_epoch(name, labelled))
        if labelled:
            lines.append(_by_rank(name, labelled))
            best = max(labelled, key=lambda one: one.val_acc)
            if best.probabilities.shape[1] <= MOST_CLASSES:
                heats.append(_similar(name, best))
    return lines, heats


def _labelled_epoch(epoch: int, rows: Sequence[Row], store: Store) -> LabelledEpoch | None:
    """The labels of one epoch that are in the store; None if there are none."""
    facts, probabilities, classes = [], [], []
    for (ids, set_id), _ in list(group(rows, ["labels_id", "set_id"]).items())[:MOST_SETS]:
        one = _probabilities(ids, store)
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


def _probabilities(ids: str, store: Store) -> NDArray[np.float64] | None:
    """Mean-logit probabilities [N, C] of an ensemble at temperature 1; None if not all are in the store."""
    artifacts = [store.find("logits", name) for name in ids.split("+")]
    if any(artifact is None for artifact in artifacts):
        return None
    return softmax(np.mean(read_together(a.folder for a in artifacts if a is not None), axis=0))


def learned_labels(rows: Sequence[Row], store: Store) -> dict[str, list[NDArray[np.float32]]]:
    """Learned labels [N, C] that are in the store, by the id of their compressed set."""
    learned = [r for r in finished(rows) if r.get("labels.kind") == LEARNED]
    found: dict[str, list[NDArray[np.float32]]] = {}
    for set_id, labels_id in {(r["set_id"], r["labels_id"]): None for r in learned}:
        if (artifact := store.find("learned", labels_id)) is not None:
            found.setdefault(set_id, []).append(read_logits(artifact.folder))
    return found


def divergences(
    rows: Sequence[Row], learned: Mapping[str, Sequence[NDArray[np.float32]]], store: Store
) -> dict[int, list[float]]:
    """For each teacher epoch, the divergence of every set's learned labels from the teacher's labels."""
    found: dict[int, list[float]] = {}
    for epoch, ids, set_id in {(r["labels.teacher_epoch"], r["labels_id"], r["set_id"]): None for r in rows}:
        if set_id in learned and (labels := _probabilities(ids, store)) is not None:
            found.setdefault(int(epoch), []).extend(divergence(one, labels) for one in learned[set_id])
    return found


def _by_epoch(teacher: str, labelled: Sequence[LabelledEpoch]) -> Lines:
    largest = float(np.log(labelled[0].probabilities.shape[1]))
    measures = {
        "entropy / log C": lambda facts: facts.entropy / largest,
        "largest probability": lambda facts: facts.confidence,
        "accuracy": lambda facts: facts.agreement,
        "calibration error": lambda facts: facts.calibration_error,
    }
    epochs = tuple(float(one.epoch) for one in labelled)
    series = []
    for label, measure in measures.items():
        means = [mean_of([measure(facts) for facts in one.facts]) for one in labelled]
        series.append(series_of(label, epochs, means))
    return Lines(
        title=f"Labels of {teacher} by epoch",
        caption=(
            f"Labels that {teacher} predicts for the compressed images at temperature 1; bars are 95 % "
            f"Student-t intervals over up to {MOST_SETS} sets."
        ),
        x_label="teacher epoch",
        y_label="mean over images",
        series=tuple(series),
        log=epochs[0] > 0,
    )


def _by_rank(teacher: str, labelled: Sequence[LabelledEpoch]) -> Lines:
    chosen = [labelled[i] for i in np.unique(np.linspace(0, len(labelled) - 1, MOST_EPOCHS).astype(int))]
    series = []
    for one in chosen:
        means = [mean_of(list(values)) for values in np.transpose([facts.by_rank for facts in one.facts])]
        series.append(series_of(f"epoch {one.epoch}", range(1, len(means) + 1), means))
    return Lines(
        title=f"Probability by rank, {teacher}",
        caption=f"Mean probability that {teacher} assigns to the most likely class, the second, and so on.",
        x_label="rank",
        y_label="mean probability",
        series=tuple(series),
    )


def _similar(teacher: str, labelled: LabelledEpoch) -> Heat:
    table = without_own_class(similarity(labelled.probabilities, labelled.classes))
    classes = tuple(range(len(table)))
    return Heat(
        title=f"{teacher}, epoch {labelled.epoch}",
        caption=(
            f"How {teacher} distributes the remaining probability over the other classes (columns) for "
            "images of each class (rows): mean probabilities in percent, scaled to sum to 100 in each row, "
            "at the epoch whose labels give the best students."
        ),
        x_label="class in the label",
        y_label="class of the image",
        x=classes,
        y=classes,
        values=tuple(tuple(None if np.isnan(v) else float(v) for v in row) for row in table),
    )


def divergence_figure(name: str, by_epoch: Mapping[int, Sequence[float]]) -> Lines:
    """Divergence of learned labels from a teacher's labels over its epochs, with the smallest mean marked.

    by_epoch: for each epoch the Jensen-Shannon divergence (nats, from 0 to log 2) of every compressed set's
    learned labels from the labels that `name` predicts for the same images (arXiv 2406.10485).
    """
    epochs = sorted(by_epoch)
    means = [mean_of(by_epoch[epoch]) for epoch in epochs]
    least = min(range(len(epochs)), key=lambda i: means[i].value)
    places = tuple(float(epoch) for epoch in epochs)
    value = means[least].value
    return Lines(
        title=f"Learned labels against {name}",
        caption=(
            f"Jensen-Shannon divergence of learned labels from the labels that {name} predicts for the same "
            "images at each epoch, mean over images; bars are 95 % Student-t intervals over compressed sets."
        ),
        x_label="teacher epoch",
        y_label="Jensen-Shannon divergence, nats",
        series=(series_of("learned labels", places, means),),
        log=epochs[0] > 0,
        percent=False,
        marked=Marked("least", (places[least],), (value,), (f"epoch {epochs[least]}",)),
    )
