"""Kinds of entries of the catalogue: what must be known of a dataset, method, score, label kind or recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from raydc.spec.keys import Key, Point, Value, Where
from raydc.spec.registry import Entry


@dataclass(frozen=True)
class DatasetEntry(Entry):
    """A dataset with a name; `target` is a function (options) -> source of decoded splits."""

    val_fraction: float = 0.1
    """Part of train that is held out when the study does not say."""
    fetchable: bool = False
    """Whether `--download` can fetch it."""


@dataclass(frozen=True)
class Method(Entry):
    """A way to make a compressed set; `target` is a function of `raydc.methods.pool.Pool`."""

    keys: tuple[Key, ...] = ()
    """Keys of `images` that it reads; they are passed to `target` as keyword arguments."""
    seeded: bool = False
    """Whether the replicate changes what is chosen."""
    needs: str = "nothing"
    """What a scorer must provide: nothing, scores, features or observer (it looks at what the method
    makes)."""
    scores: tuple[str, ...] = ()
    """Scores that it always reads."""
    from_train: bool = True
    """Whether its images come from the train part, which then must hold enough of each class."""
    brings_labels: bool = False
    """Whether its sets may bring soft labels of their own."""
    trains: bool = False
    """Whether it takes gradient steps, by `Pool.steps`: they are shown, and go on after a kill."""
    steps_key: str | None = None
    """Its key that says how many steps it takes, for the plan; None where that is not known before."""

    def scores_of(self, point: Mapping[str, Value]) -> tuple[str, ...]:
        """Scores that it reads at a point, each once."""
        chosen = [str(point[key]) for key in ("images.score", "images.prune") if key in point]
        return tuple(dict.fromkeys(name for name in [*self.scores, *chosen] if name != "none"))

    def needs_at(self, point: Mapping[str, Value]) -> str:
        """What a scorer must provide at a point."""
        return "nothing" if self.needs == "scores" and not self.scores_of(point) else self.needs


@dataclass(frozen=True)
class Score(Entry):
    """A score of hardness; `target` is a function of records [networks, epochs, 4, N] -> [N]."""

    epochs: int | None = None
    """How many of the scorer's first epochs it reads; null reads all."""
    least_epochs: int = 1
    """How many it needs."""


@dataclass(frozen=True)
class LabelKind(Entry):
    """A kind of labels; `target` is a function of `raydc.labels.kinds.LabelInputs`."""

    keys: tuple[Key, ...] = ()
    """Keys of `labels` that it reads."""
    teacher: bool = False
    """Whether a teacher's logits are needed."""
    soft: bool = True
    """Whether the targets are more than class numbers."""
    views: bool = False
    """Whether the teacher labels every view instead of every image."""
    brought: bool = False
    """Whether the labels come with the compressed set, or from `labels.path`."""
    replayed: bool = False
    """Whether the views are those of the folder `labels.path`, not the recipe's."""
    learnt: bool = False
    """Whether labels are learnt before the students are trained; `keys` are then the learner's."""
    teacher_where: tuple[Where, ...] = ()
    """Conditions under which a teacher's logits are needed."""

    differentiable: bool = False
    """Whether gradients of the targets reach the logits, or the labels that the set brings."""

    def needs_teacher(self, point: Point) -> bool:
        """Whether a teacher's logits are needed at a point."""
        return self.teacher and all(where.holds(point) for where in self.teacher_where)

    @property
    def logits(self) -> bool:
        """Whether targets come with the logits of a teacher."""
        return self.replayed or (self.teacher and not self.learnt)


@dataclass(frozen=True)
class RecipeEntry(Entry):
    """A named set of defaults for the keys of `train`, and for `labels.temperature` if it has one.

    `target` names the source of the values (paper, repository), not code.
    """

    values: Mapping[str, Value] = field(default_factory=dict)
    note: str = ""
    """What the values cannot say, in sentences."""

    def load(self) -> Mapping[str, Value]:
        return self.values
