"""Classes of catalogue entries: the description of a dataset, method, score, label kind, tracker or
recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from raydc.spec.keys import Key, Point, Value, Where
from raydc.spec.registry import Entry
from raydc.spec.training_entries import misplaced_key


@dataclass(frozen=True)
class DatasetEntry(Entry):
    """A dataset with a name; `target` is a function (root, download) -> `raydc.data.source.Source`.

    root: `dataset.root`, or None; download: whether missing files may be downloaded.
    """

    val_fraction: float = 0.1
    """Fraction of the training data held out for validation when the study gives none."""
    fetchable: bool = False
    """Whether `--download` can download it."""


@dataclass(frozen=True)
class Method(Entry):
    """A way to make a compressed set; `target` is a function of `raydc.methods.pool.Pool`."""

    keys: tuple[Key, ...] = ()
    """Keys of `images` that the method reads; they are passed to `target` as keyword arguments."""
    seeded: bool = False
    """Whether the choice of images depends on the replicate."""
    needs: str = "nothing"
    """What a scorer must provide: nothing, scores, features or observer (the scorer itself, which rates
    candidates that the method makes)."""
    scores: tuple[str, ...] = ()
    """Scores that the method always reads."""
    from_train: bool = True
    """Whether its images come from the training data, which then must hold enough images of each class."""
    brings_labels: bool = False
    """Whether its sets may contain soft labels."""
    trains: bool = False
    """Whether it takes gradient steps with `Pool.steps`: they are shown, and continue after a kill."""
    steps_key: str | None = None
    """Its key with the number of steps, for the plan; None if the number is unknown before the run."""

    NEEDS: ClassVar[tuple[str, ...]] = ("nothing", "scores", "features", "observer")

    def problem(self) -> str | None:
        if self.steps_key is not None and self.steps_key not in [key.name for key in self.keys]:
            return f"has the steps_key {self.steps_key!r}, which must be one of the keys that it declares"
        return (
            super().problem()
            or misplaced_key(self.keys, "images")
            or self.not_one_of("needs", self.needs, self.NEEDS)
        )

    def scores_of(self, point: Mapping[str, Value]) -> tuple[str, ...]:
        """Scores that the method reads at a point, each once."""
        chosen = [str(point[key]) for key in ("images.score", "images.prune") if key in point]
        return tuple(dict.fromkeys(name for name in [*self.scores, *chosen] if name != "none"))

    def needs_at(self, point: Mapping[str, Value]) -> str:
        """What a scorer must provide at a point."""
        return "nothing" if self.needs == "scores" and not self.scores_of(point) else self.needs


@dataclass(frozen=True)
class Score(Entry):
    """A score of hardness; `target` is a function of records [networks, epochs, 4, N] -> [N]."""

    epochs: int | None = None
    """Number of the scorer's first epochs that the score reads; None reads all."""
    least_epochs: int = 1
    """Smallest number of epochs that the score needs."""


NEEDS = ("logits", "view_logits", "soft_labels", "labelled_views", "learned")
"""Inputs that a label kind may need; each is a method of `raydc.labels.inputs.LabelInputs`."""


@dataclass(frozen=True)
class Need:
    """An input that a label kind needs; it is made before students are trained."""

    what: str
    """One of `NEEDS`: a teacher's logits for the set's images (logits) or for every view (view_logits),
    probabilities from the set or the file `labels.path` (soft_labels), the folder of views `labels.path`
    (labelled_views), or labels that are learned beforehand (learned)."""
    keys: tuple[Key, ...] = ()
    """Keys of `labels` that describe it. They are not passed to the kind's function."""
    where: tuple[Where, ...] = ()
    """Conditions under which the input is needed."""


@dataclass(frozen=True)
class LabelKind(Entry):
    """A kind of labels; `target` is a function of `raydc.labels.inputs.LabelInputs`."""

    keys: tuple[Key, ...] = ()
    """Keys of `labels` that are passed to `target` as keyword arguments."""
    needs: tuple[Need, ...] = ()
    """Inputs that the kind needs, in addition to the classes of the images."""
    soft: bool = True
    """Whether the targets are more than class numbers."""
    offers_logits: bool = False
    """Whether its targets include the logits of a teacher."""
    differentiable: bool = False
    """Whether gradients flow from the targets to the logits or probabilities that the kind needs."""

    @property
    def all_keys(self) -> tuple[Key, ...]:
        """Keys of `labels` that apply where this kind is chosen: those of its needs and its own."""
        return (*(key for need in self.needs for key in need.keys), *self.keys)

    def needs_at(self, point: Point) -> frozenset[str]:
        """The members of `NEEDS` that the kind has at a point."""
        return frozenset(need.what for need in self.needs if all(where.holds(point) for where in need.where))

    def problem(self) -> str | None:
        teachers = {need.what for need in self.needs} & {"logits", "view_logits"}
        if len(teachers) > 1:
            return "needs logits and view_logits, but a teacher labels either images or views; choose one"
        unknown = self.not_one_of("needs", tuple(need.what for need in self.needs), NEEDS)
        return super().problem() or unknown or misplaced_key(self.all_keys, "labels")

    def needs_teacher(self, point: Point) -> bool:
        """Whether a teacher's logits are needed at a point."""
        return not self.needs_at(point).isdisjoint({"logits", "view_logits"})

    def arguments(self, point: Point) -> dict[str, Value]:
        """Keyword arguments of the kind's function at a point."""
        return {key.name.removeprefix("labels."): point[key.name] for key in self.keys if key.name in point}


@dataclass(frozen=True)
class TrackerEntry(Entry):
    """A tracker; `target` is a function or a class: `raydc.tracking.tracker.TrackerContext` -> `Tracker`."""

    keys: tuple[Key, ...] = ()
    """Keys of the `tracking` block that the tracker reads, in addition to `kind`, such as `tracking.uri`."""
    display_name: str = ""
    """Name in messages; default: the tracker 'NAME'."""
    local: bool = False
    """Whether the tracker, with its default options, needs only the study's folder. A run does not wait until
    such a tracker has started. It does wait for any other tracker, so that a tracker that does not answer is
    an error at the start."""
    records: bool = True
    """Whether the tracker records anything."""

    def problem(self) -> str | None:
        return super().problem() or misplaced_key(self.keys, "tracking")

    @property
    def label(self) -> str:
        """Name in messages."""
        return self.display_name or f"the tracker {self.name!r}"


@dataclass(frozen=True)
class RecipeEntry(Entry):
    """A named set of defaults for the keys of `train`, and optionally for `labels.temperature`.

    `target` is the source of the values (paper, repository), not code.
    """

    has_code: ClassVar[bool] = False

    values: Mapping[str, Value] = field(default_factory=dict)
    note: str = ""
    """Further details in sentences, which the values cannot express."""

    def load(self) -> Mapping[str, Value]:
        return self.values
