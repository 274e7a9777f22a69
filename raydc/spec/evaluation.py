"""One evaluation, fully resolved: the unit of work and of results.

Everything here is a frozen value that survives a trip through JSON unchanged; the training code
reads these, never a study file.
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
"""Rises only when an equal evaluation would give another number."""


def canonical_json(content: Any) -> str:
    """The one JSON text of `content`: sorted keys, no spaces, NaN refused, tuples as lists."""
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
    """Which images, and what is made of them before anything else sees them."""

    name: str
    """What tables call it: the registered name, or the name of the folder."""
    source: str
    """`named`, `parquet`, `folder` or `hub`."""
    location: str | None = None
    """Folder of the data (or the name on the hub); null where a named dataset needs none."""
    resolution: int | None = None
    """Side in pixels to which images are resized; null keeps the native size."""
    zca: bool = False
    """Whether inputs are ZCA-whitened (fitted on the train part) instead of standardised."""
    val_fraction: float = 0.1
    """Part of train held out for validation, in [0, 1)."""
    classes: int | tuple[int | str, ...] | None = None
    """The first N classes, or a list of indices or names; null keeps all."""
    train_limit: int | None = None
    """Most images kept of the train part, class-balanced; null keeps all."""
    cache_limit_gib: float = 8.0
    """Above this decoded size the images stay encoded on disk, in GiB."""

    def choices(self) -> dict[str, Value]:
        """The options that change what is trained on; with the fingerprint they name the data."""
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
    """Images a step, at least 1; a smaller set is one batch."""
    momentum: float = 0.0
    """Momentum of SGD, in [0, 1)."""
    nesterov: bool = False
    """Whether SGD's momentum is Nesterov's; without momentum it changes nothing."""
    warmup_epochs: int = 0
    """Epochs in which the rate rises to its peak, before the schedule begins."""
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
    """Area of random resized crops."""
    mixup_alpha: float = 0.8
    """Alpha of mixup's Beta distribution."""
    cutmix_alpha: float = 1.0
    """Alpha of CutMix's Beta distribution."""
    test_every: int | None = None
    """Epochs between extra test passes."""
    view_seed: int | None = None
    """Seed of the views; null means the replicate."""
    more: tuple[tuple[str, Value], ...] = ()
    """(name, value) of the keys of `train` that parts of plugins declare."""

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
        """Steps whose views differ, when the part `keep_views` of them is used again and again."""
        total = self.total_steps(images)
        return total if keep_views == 1 else min(total, max(1, round(keep_views * total)))


@dataclass(frozen=True)
class TeacherSpec:
    """A network that labels or scores images, and how it comes to be."""

    name: str
    """What `labels.teacher` calls it."""
    arch: str
    """Architecture name."""
    train: Mapping[str, Value] = field(default_factory=dict)
    """Resolved `train.` keys; empty for a teacher that is not trained here."""
    keep: tuple[int, ...] | None = None
    """Epochs whose checkpoints may be asked for; null keeps what the study uses."""
    count: int = 1
    """How many networks, differing in their seed only."""
    checkpoint: str | None = None
    """File with trained weights, or trajectories, instead of training."""
    weights: str | None = None
    """Tag of published weights (torchvision, timm), instead of training."""
    digest: str | None = None
    """SHA-256 of the checkpoint file, which names it in ids."""
    code: Mapping[str, str] = field(default_factory=dict)
    """Digests of the code of plugins that its training runs (raydc.spec.code)."""

    @property
    def trained_here(self) -> bool:
        return self.checkpoint is None and self.weights is None

    @property
    def is_buffer(self) -> bool:
        """Whether `checkpoint` holds trajectories of others (MTT's replay_buffer_*.pt, or their folder)."""
        name = PurePath(self.checkpoint or "").name
        return self.checkpoint is not None and (name.startswith("replay_buffer") or "." not in name)

    @property
    def recipe(self) -> Recipe:
        return Recipe.of(self.train)

    @property
    def epochs(self) -> int | None:
        """Length of the training; null for a teacher that is not trained here."""
        return self.recipe.epochs if self.trained_here else None


@dataclass(frozen=True)
class Evaluation:
    """(compressed set, labels, student, recipe, seed), resolved; its result is an accuracy."""

    dataset: DatasetSpec
    point: Mapping[str, Value]
    """Every key that applies, with its canonical value."""
    seed: int
    """The replicate, at least 0."""
    teacher: TeacherSpec | None = None
    """Who labels, where labels need a teacher."""
    scorer: TeacherSpec | None = None
    """Who scores or embeds the images, where the method needs it."""
    digests: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of the files that keys name, by key; they stand in ids instead of the paths."""
    code: Mapping[str, str] = field(default_factory=dict)
    """Digests of the code of plugins that it runs (raydc.spec.code)."""

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
        """How many networks label together."""
        return int(self.point.get("labels.ensemble", 1))

    @property
    def image_seed(self) -> int:
        """Seed of the choice of images: `images.seed`, else the replicate."""
        return int(self.point.get("images.seed", self.seed))

    @property
    def view_seed(self) -> int:
        """Seed of the views: `train.view_seed`, else the replicate."""
        return int(self.point.get("train.view_seed", self.seed))

    @property
    def label_needs(self) -> frozenset[str]:
        """What its kind of labels needs (raydc.spec.entries.NEEDS)."""
        return catalog.LABELS[str(self.point["labels.kind"])].needs_at(self.point)

    @property
    def labels_views(self) -> bool:
        """Whether the teacher labels every view instead of every image."""
        return "view_logits" in self.label_needs

    @property
    def replays_views(self) -> bool:
        """Whether the views are those of a folder, not the recipe's."""
        return "labelled_views" in self.label_needs

    @property
    def keep_views(self) -> float:
        """Part of the views that is stored and used again."""
        return float(self.point.get("labels.keep_views", 1.0))

    def block(self, block: str) -> dict[str, Value]:
        """Values of one block by their name inside it."""
        prefix = f"{block}."
        return {k.removeprefix(prefix): v for k, v in self.point.items() if k.startswith(prefix)}

    def files(self, block: str) -> dict[str, str]:
        """SHA-256 of the files that keys of one block name, by the key's name inside it."""
        prefix = f"{block}."
        return {k.removeprefix(prefix): v for k, v in self.digests.items() if k.startswith(prefix)}

    def to_json(self) -> str:
        """Canonical JSON; `from_json` gives an equal evaluation back."""
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
