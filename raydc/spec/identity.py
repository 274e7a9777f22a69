"""Ids: everything that a study makes is named by the hash of its inputs.

Ids do not depend on paths, devices, packs or workers. Keys that do not apply are absent, and keys at an
inert default are omitted, so a later version can add keys without renaming old results. A committed
sample (tests/spec/ids.json) is a test that ids do not change.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from raydc.spec import catalog
from raydc.spec.code import Code, of_keys
from raydc.spec.evaluation import PROTOCOL_VERSION, DatasetSpec, Evaluation, TeacherSpec, canonical_json
from raydc.spec.keys import Grammar, Point, Value
from raydc.spec.point import point_grammar

VIEW_KEYS = ("augment", "augment_strength", "batch_size", "crop_scale", "cutmix_alpha", "mixup_alpha")
"""Keys of `train` that determine the views of a set."""
TRAIN_PARTS = ("train.optimizer", "train.schedule", "train.loss", "train.augment")
"""Keys of `train` whose values are parts with code."""


def digest(kind: str, content: Any) -> str:
    """20 hexadecimal digits that identify `content`, a JSON-serialisable object."""
    text = canonical_json([kind, PROTOCOL_VERSION, content])
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def _with_code(code: Code) -> dict[str, Value]:
    """The plugin code as ids contain it; empty without plugins."""
    return {"code": dict(code)} if code else {}


def dataset_id(fingerprint: str, spec: DatasetSpec) -> str:
    """Id of the images as used for training: their contents and options, not the path."""
    return digest("dataset", {"fingerprint": fingerprint, **spec.choices()})


class IdBuilder:
    """Builds the ids of everything that is made from one dataset."""

    def __init__(self, dataset: str, grammar: Grammar | None = None) -> None:
        self.dataset = dataset
        self._grammar = grammar or point_grammar()
        self._trajectories: dict[tuple[str, int], str] = {}

    def _essential(self, point: Point, block: str) -> dict[str, Value]:
        """Values of one block without inert defaults."""
        return {
            name: point[key.name]
            for name, key in self._grammar.block(block).items()
            if key.name in point and not (key.inert and point[key.name] == key.default)
        }

    def _train(self, point: Point) -> dict[str, Value]:
        """`train` as ids contain it: the recipe's values instead of its name, without seeds."""
        train = self._essential(point, "train")
        return {k: v for k, v in train.items() if k not in ("recipe", "view_seed")}

    def trajectory(self, teacher: TeacherSpec, index: int) -> str:
        """Id of network `index` of a teacher, with all its epochs."""
        known = (
            canonical_json([teacher.arch, teacher.train, teacher.digest, teacher.weights, teacher.code]),
            index,
        )
        if known not in self._trajectories:
            content: dict[str, Value] = {"arch": teacher.arch, "dataset": self.dataset}
            content |= _with_code(teacher.code)
            if teacher.checkpoint is not None:
                content["checkpoint"] = teacher.digest
                if teacher.is_buffer:
                    content["index"] = index
            elif teacher.weights is not None:
                content["weights"] = teacher.weights
            else:
                train = self._train(teacher.train)
                if not catalog.SCHEDULES[str(train["schedule"])].needs_length:
                    del train["epochs"]
                content |= {"train": train, "index": index}
            self._trajectories[known] = digest("trajectory", content)
        return self._trajectories[known]

    def compressed_set(self, evaluation: Evaluation) -> str:
        """Id of the images that the student of `evaluation` is trained on."""
        images = self._essential({**evaluation.point, **evaluation.digests}, "images")
        if catalog.METHODS[evaluation.method].seeded:
            images["seed"] = evaluation.image_seed
        content: dict[str, Value] = {"dataset": self.dataset, "images": images}
        content |= _with_code(of_keys(evaluation.code, "images.method", "images.score"))
        if (need := scoring(evaluation)) is not None:
            content["scorer"] = {
                "trajectories": [self.trajectory(need.scorer, i) for i in range(need.networks)],
                "epoch": need.epoch,
            }
        return digest("set", content)

    @staticmethod
    def logits(
        compressed_set: str, trajectory: str, epoch: int | None, views: dict[str, Value] | None = None
    ) -> str:
        """Id of a label pass: the logits of one checkpoint for one compressed set, or for views of it."""
        content = {"set": compressed_set, "trajectory": trajectory, "epoch": epoch}
        return digest("logits", content if views is None else {**content, "views": views})

    def views(self, evaluation: Evaluation) -> dict[str, Value] | None:
        """What determines the views that a teacher labels; None where it labels images."""
        if not evaluation.labels_views:
            return None
        return {**self._view_keys(evaluation), "seed": evaluation.view_seed}

    def _view_keys(self, evaluation: Evaluation) -> dict[str, Value]:
        """Keys of `train`, and plugin code, that determine the views of a set."""
        train = self._train(evaluation.point)
        declared = {key.name for entry in catalog.AUGMENTATIONS for key in entry.keys}
        names = (*VIEW_KEYS, *(name.removeprefix("train.") for name in declared))
        made = _with_code(of_keys(evaluation.code, "train.augment"))
        return {k: train[k] for k in dict.fromkeys(names) if k in train} | made

    def learned(self, evaluation: Evaluation) -> str | None:
        """Id of the labels that are learned for the set of `evaluation`; None for another label kind."""
        if "learned" not in evaluation.label_needs:
            return None
        content = {
            "set": self.compressed_set(evaluation),
            "labels": self._labels(evaluation),
            "student": self._student(evaluation),
            "views": self._view_keys(evaluation),
        }
        return digest("learned", content)

    def label_trajectories(self, evaluation: Evaluation) -> list[str]:
        """Ids of the networks whose logits make the labels of `evaluation`."""
        if evaluation.teacher is None:
            return []
        return [self.trajectory(evaluation.teacher, i) for i in range(evaluation.ensemble)]

    def _labels(self, evaluation: Evaluation) -> dict[str, Value]:
        """`labels` as ids contain it: the ids of the networks that label instead of the teacher's name."""
        labels = self._essential({**evaluation.point, **evaluation.digests}, "labels")
        labels |= _with_code(of_keys(evaluation.code, "labels.kind", "labels.codec"))
        if evaluation.teacher is None:
            return labels
        labels = {k: v for k, v in labels.items() if k not in ("teacher", "ensemble")}
        return {**labels, "trajectories": self.label_trajectories(evaluation)}

    def _student(self, evaluation: Evaluation) -> dict[str, Value]:
        code = _with_code(of_keys(evaluation.code, "student.arch"))
        return self._essential(evaluation.point, "student") | code

    def evaluation(self, evaluation: Evaluation) -> str:
        """Id of `evaluation` and of its result."""
        return digest(
            "evaluation",
            {
                "set": self.compressed_set(evaluation),
                "labels": self._labels(evaluation),
                "student": self._student(evaluation),
                "train": self._train(evaluation.point) | _with_code(of_keys(evaluation.code, *TRAIN_PARTS)),
                "seed": evaluation.seed,
                "view_seed": evaluation.view_seed,
            },
        )


@dataclass(frozen=True)
class Scoring:
    """What a method needs from its scorer."""

    scorer: TeacherSpec
    what: str
    """`scores`, `features` or `observer`."""
    epoch: int | None
    """Last epoch whose scores are read, or the epoch of the features or the observer; None for a teacher
    that the study does not train, which has one checkpoint only."""
    networks: int
    """Number of the scorer's networks that are used."""


def scoring(evaluation: Evaluation) -> Scoring | None:
    """What the method of `evaluation` needs from its scorer, or None."""
    method = catalog.METHODS[evaluation.method]
    needs = method.needs_at(evaluation.point)
    if needs == "nothing":
        return None
    scorer = evaluation.scorer
    assert scorer is not None, f"{evaluation.method} needs a scorer"
    if needs in ("features", "observer"):
        return Scoring(scorer, needs, scorer.epochs, 1)
    assert scorer.epochs is not None, "scores are recorded while a scorer trains"
    score_epoch = evaluation.point.get("images.score_epoch")
    longest = max(
        min(score_epoch or catalog.SCORES[name].epochs or scorer.epochs, scorer.epochs)
        for name in method.scores_of(evaluation.point)
    )
    return Scoring(scorer, needs, longest, scorer.count)
