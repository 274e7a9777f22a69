"""One evaluation, fully resolved: the unit of work and of results.

All classes are frozen values that can be written to JSON and read back unchanged. The training code
reads these values, never a study file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import PurePath
from typing import Any

from raydc.files.plain_json import parse_json
from raydc.spec import catalog
from raydc.spec.keys import Key, Point, Value

PROTOCOL_VERSION = 1
"""Increased only when an equal evaluation would give a different result."""


def canonical_json(content: Any) -> str:
    """The canonical JSON of `content`: sorted keys, no spaces, tuples as lists; NaN is an error."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def frozen(value: Any) -> Any:
    """`value` as read from JSON, with lists as tuples."""
    if isinstance(value, list):
        return tuple(frozen(item) for item in value)
    if isinstance(value, dict):
        return {key: frozen(item) for key, item in value.items()}
    return value


@dataclass(frozen=True)
class DatasetSpec:
    """Which images are used, and how they are preprocessed."""

    name: str
    """Name in tables: the registered name, or the name of the folder."""
    source: str
    """`named`, `parquet`, `folder` or `hub`."""
    location: str | None = None
    """Folder of the data (or the name on the hub); None where a named dataset needs none."""
    resolution: int | None = None
    """Side in pixels to which images are resized; None keeps the native size."""
    zca: bool = False
    """Whether inputs are ZCA-whitened (fitted on the training data) instead of standardised."""
    val_fraction: float = 0.1
    """Fraction of the training data held out for validation, in [0, 1)."""
    classes: int | tuple[int | str, ...] | None = None
    """The first N classes, or a list of indices or names; None keeps all."""
    train_limit: int | None = None
    """Largest number of training images, class-balanced; None keeps all."""
    cache_limit_gib: float = 8.0
    """Decoded size in GiB above which the images stay encoded on disk."""

    def choices(self) -> dict[str, Value]:
        """The options that change the data; the id of the data is made of these and the fingerprint."""
        chosen = {
            "resolution": self.resolution,
            "zca": self.zca or None,
            "classes": self.classes,
            "train_limit": self.train_limit,
        }
        return {"val_fraction": self.val_fraction} | {
            key: value for key, value in chosen.items() if value is not None
        }


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: the typed view of a point's `train` keys."""

    optimizer: str
    """Name of the optimizer."""
    lr: float
    """Peak learning rate, above 0."""
    weight_decay: float
    """Weight decay, at least 0."""
    schedule: str
    """Name of the learning-rate schedule; schedules count steps."""
    batch_size: int
    """Images per step, at least 1; a smaller set is one batch."""
    momentum: float = 0.0
    """Momentum of SGD, in [0, 1)."""
    nesterov: bool = False
    """Whether SGD uses Nesterov momentum; without momentum it has no effect."""
    warmup_epochs: int = 0
    """Epochs of warm-up, in which the rate rises to its peak before the schedule begins."""
    epochs: int | None = None
    """Complete passes; exactly one of `epochs` and `steps` is given."""
    steps: int | None = None
    """Optimizer steps; 0 leaves the network as initialised."""
    loss: str = "ce"
    """Name of the loss (raydc.training.losses)."""
    precision: str = "fp32"
    """fp32 (TF32 off), tf32 or bf16."""
    augment: tuple[str, ...] = ()
    """Augmentations in the order in which they are applied."""
    augment_strength: float = 1.0
    """Scale of the augmentations' ranges."""
    crop_scale: tuple[float, float] = (0.08, 1.0)
    """Smallest and largest area of random resized crops, as fractions of the image."""
    mixup_alpha: float = 0.8
    """Alpha of mixup's Beta distribution."""
    cutmix_alpha: float = 1.0
    """Alpha of CutMix's Beta distribution."""
    test_every: int | None = None
    """Epochs between extra test passes."""
    view_seed: int | None = None
    """Seed of the views; None means the replicate."""
    more: tuple[tuple[str, Value], ...] = ()
    """(name, value) of the keys of `train` that are declared by plugins."""

    @staticmethod
    def of(point: Point) -> Recipe:
        """The recipe in the `train.` keys of `point`."""
        known = {f.name for f in fields(Recipe)} - {"more"}
        given = {k.removeprefix("train."): v for k, v in point.items() if k.startswith("train.")}
        more = sorted((name, value) for name, value in given.items() if name not in (*known, "recipe"))
        return Recipe(**{k: v for k, v in given.items() if k in known}, more=tuple(more))

    def arguments(self, keys: Iterable[Key]) -> dict[str, Value]:
        """Values of the keys of `train` that a part declares, by their name in the block."""
        more = dict(self.more)
        names = [key.name.removeprefix("train.") for key in keys]
        return {name: more[name] if name in more else getattr(self, name) for name in names}

    def steps_per_epoch(self, images: int) -> int:
        """Steps of one pass over `images` images; the last batch may be smaller."""
        return max(1, -(-images // self.batch_size))

    def total_steps(self, images: int) -> int:
        """Steps of the whole training on `images` images."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return self.epochs * self.steps_per_epoch(images)

    def distinct_steps(self, images: int, keep_views: float) -> int:
        """Number of steps with distinct views, when the fraction `keep_views` of them is used repeatedly."""
        total = self.total_steps(images)
        return total if keep_views == 1 else min(total, max(1, round(keep_views * total)))


@dataclass(frozen=True)
class TeacherSpec:
    """A network that labels or scores images, and how it is obtained."""

    name: str
    """Name that `labels.teacher` refers to."""
    arch: str
    """Architecture name."""
    train: Mapping[str, Value] = field(default_factory=dict)
    """Resolved `train.` keys; empty for a teacher that the study does not train."""
    keep: tuple[int, ...] | None = None
    """Epochs whose checkpoints may be requested; None keeps the epochs that the study uses."""
    count: int = 1
    """Number of networks, which differ in their seed only."""
    checkpoint: str | None = None
    """File with trained weights or trajectories, used instead of training."""
    weights: str | None = None
    """Tag of published weights (torchvision, timm), used instead of training."""
    digest: str | None = None
    """SHA-256 of the checkpoint file, which ids contain instead of the path."""
    code: Mapping[str, str] = field(default_factory=dict)
    """Digests of the plugin code that its training runs (raydc.spec.code)."""

    @property
    def trained_here(self) -> bool:
        return self.checkpoint is None and self.weights is None

    @property
    def is_buffer(self) -> bool:
        """Whether `checkpoint` holds trajectories from MTT (replay_buffer_*.pt, or a folder of them)."""
        name = PurePath(self.checkpoint or "").name
        return self.checkpoint is not None and (name.startswith("replay_buffer") or "." not in name)

    @property
    def recipe(self) -> Recipe:
        return Recipe.of(self.train)

    @property
    def epochs(self) -> int | None:
        """Length of the training; None for a teacher that the study does not train."""
        return self.recipe.epochs if self.trained_here else None


@dataclass(frozen=True)
class Evaluation:
    """A resolved combination of compressed set, labels, student, recipe and seed; gives an accuracy."""

    dataset: DatasetSpec
    point: Mapping[str, Value]
    """Every key that applies, with its canonical value."""
    seed: int
    """The replicate, at least 0."""
    teacher: TeacherSpec | None = None
    """Network that labels the images, where labels need a teacher."""
    scorer: TeacherSpec | None = None
    """Network that scores or embeds the images, where the method needs one."""
    digests: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of the files that keys refer to, by key; ids contain them instead of the paths."""
    code: Mapping[str, str] = field(default_factory=dict)
    """Digests of the plugin code that the evaluation runs (raydc.spec.code)."""

    @property
    def method(self) -> str:
        return str(self.point["images.method"])

    @property
    def ipc(self) -> int:
        return int(self.point["images.ipc"])

    @property
    def arch(self) -> str:
        return str(self.point["student.arch"])

    @property
    def recipe(self) -> Recipe:
        return Recipe.of(self.point)

    @property
    def ensemble(self) -> int:
        """Number of networks whose mean logits label the images."""
        return int(self.point.get("labels.ensemble", 1))

    @property
    def image_seed(self) -> int:
        """Seed for choosing images: `images.seed`, or the replicate."""
        return int(self.point.get("images.seed", self.seed))

    @property
    def view_seed(self) -> int:
        """Seed of the views: `train.view_seed`, or the replicate."""
        return int(self.point.get("train.view_seed", self.seed))

    @property
    def label_needs(self) -> frozenset[str]:
        """Inputs that its label kind needs (raydc.spec.entries.NEEDS)."""
        return catalog.LABELS[str(self.point["labels.kind"])].needs_at(self.point)

    @property
    def labels_views(self) -> bool:
        """Whether the teacher labels every view instead of every image."""
        return "view_logits" in self.label_needs

    @property
    def replays_views(self) -> bool:
        """Whether the views come from a folder instead of the recipe's augmentations."""
        return "labelled_views" in self.label_needs

    @property
    def keep_views(self) -> float:
        """Fraction of the views that is stored and used repeatedly."""
        return float(self.point.get("labels.keep_views", 1.0))

    def block(self, block: str) -> dict[str, Value]:
        """Values of one block, by the key's name inside the block."""
        prefix = f"{block}."
        return {k.removeprefix(prefix): v for k, v in self.point.items() if k.startswith(prefix)}

    def files(self, block: str) -> dict[str, str]:
        """SHA-256 of the files that the keys of one block refer to, by the key's name inside the block."""
        prefix = f"{block}."
        return {k.removeprefix(prefix): v for k, v in self.digests.items() if k.startswith(prefix)}

    def to_json(self) -> str:
        """Canonical JSON; `from_json` returns an equal evaluation."""
        return canonical_json(asdict(self))

    @staticmethod
    def from_json(text: str) -> Evaluation:
        content = frozen(parse_json(text))

        def teacher(part: dict[str, Any] | None) -> TeacherSpec | None:
            return None if part is None else TeacherSpec(**part)

        return Evaluation(
            dataset=DatasetSpec(**content["dataset"]),
            point=content["point"],
            seed=content["seed"],
            teacher=teacher(content["teacher"]),
            scorer=teacher(content["scorer"]),
            digests=content.get("digests", {}),
            code=content.get("code", {}),
        )
