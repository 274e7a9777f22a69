"""A point of a study: every key that applies, with its value.

`resolve` turns the values of a study (base and one combination of a grid) into a point: the recipe sets the
keys that are not given, keys that do not apply are dropped, and invalid combinations are errors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from raydc.errors import InputError, did_you_mean, one_of
from raydc.spec import catalog, label_kinds
from raydc.spec.keys import (
    DERIVED,
    REQUIRED,
    AnyOf,
    Choice,
    Grammar,
    Key,
    Point,
    Real,
    Text,
    Value,
    Where,
    Whole,
    show,
)
from raydc.spec.training_entries import Arch

BLOCKS = ("images", "labels", "student", "train")
PRECISIONS = ("fp32", "tf32", "bf16")
EXCLUSIVE_KEYS = {"train.epochs": "train.steps", "train.steps": "train.epochs"}
"""Pairs of keys of which exactly one is used; the one that is given later replaces the other."""

ARCH = Arch(catalog.NETWORKS)


@dataclass(frozen=True)
class Augment:
    """none, a name, or a list of names; sorted into the order in which they are applied."""

    def cast(self, given: Value) -> tuple[str, ...]:
        names = [given] if isinstance(given, str) else given
        if not isinstance(names, list | tuple) or not all(isinstance(n, str) for n in names):
            raise ValueError
        if list(names) == ["none"]:
            return ()
        known = catalog.AUGMENTATIONS.names()
        for name in names:
            if name not in known:
                raise ValueError(f"{name} is not known{did_you_mean(name, known)}")
        if len(set(names)) < len(names):
            raise ValueError("one is named twice")
        # Augmentations that change single images, also from plugins, come before those that mix images.
        return tuple(sorted(names, key=lambda n: (catalog.AUGMENTATIONS[n].mixes, known.index(n))))

    def describe(self) -> str:
        return f"none, or one or a list of {one_of(catalog.AUGMENTATIONS.names())}"


def _keys_of(registry: Iterable[catalog.WithKeys]) -> dict[str, tuple[Key, ...]]:
    return {entry.name: entry.keys for entry in registry}


def _declared(declared: Mapping[str, Sequence[Key]], discriminator: str) -> list[Key]:
    """Keys that entries declare; a key applies where an entry that declares it is chosen."""
    users: dict[str, dict[tuple[Where | AnyOf, ...], list[str]]] = {}
    keys: dict[str, Key] = {}
    for name, own in declared.items():
        for key in own:
            plain = replace(key, where=())
            if keys.setdefault(key.name, plain) != plain:
                others = [repr(other) for names in users[key.name].values() for other in names]
                raise InputError(
                    f"{name!r} declares the key {key.name} differently than {one_of(others)}; give it "
                    "another name"
                )
            users.setdefault(key.name, {}).setdefault(key.where, []).append(name)
    return [replace(key, where=_where(users[name], discriminator)) for name, key in keys.items()]


def _where(
    users: Mapping[tuple[Where | AnyOf, ...], Sequence[str]], discriminator: str
) -> tuple[Where | AnyOf, ...]:
    """The condition that one of `users` is chosen and its own conditions hold."""
    groups = [(Where(discriminator, tuple(names)), *own) for own, names in users.items()]
    return groups[0] if len(groups) == 1 else (AnyOf(tuple(groups)),)


def train_keys() -> list[Key]:
    """Keys of `train`, which a teacher block takes as well."""
    augmented = Where("train.augment", catalog.AUGMENTATIONS.names())
    soft = tuple(kind.name for kind in catalog.LABELS if kind.soft)
    return [
        Key("train.recipe", Choice(catalog.RECIPES.names), "named set of defaults", "label-worth"),
        Key("train.optimizer", Choice(catalog.OPTIMIZERS.names), "optimizer", DERIVED),
        Key("train.lr", Real(above=0), "peak learning rate", DERIVED),
        Key("train.weight_decay", Real(low=0), "weight decay", DERIVED),
        *_declared(_keys_of(catalog.OPTIMIZERS), "train.optimizer"),
        Key(
            "train.schedule",
            Choice(catalog.SCHEDULES.names),
            "how the learning rate decreases over the steps",
            DERIVED,
        ),
        *_declared(_keys_of(catalog.SCHEDULES), "train.schedule"),
        Key(
            "train.warmup_epochs",
            Whole(0),
            "epochs in which the learning rate rises from a hundredth of its peak; then the schedule begins",
            0,
            inert=True,
        ),
        Key("train.epochs", Whole(1), "complete passes over the training set", None),
        Key("train.steps", Whole(0), "optimizer steps, instead of epochs", None),
        Key("train.batch_size", Whole(1), "images per step", DERIVED),
        Key(
            "train.loss",
            Choice(catalog.LOSSES.names),
            "loss of the student with soft labels; with hard labels it is always cross-entropy (ce)",
            DERIVED,
            where=(Where("labels.kind", soft),),
        ),
        *_declared(_keys_of(catalog.LOSSES), "train.loss"),
        Key(
            "train.precision",
            Choice(PRECISIONS),
            "fp32 (TF32 off), tf32, or bf16 autocast",
            "fp32",
            inert=True,
        ),
        Key("train.augment", Augment(), "how each view of the training images is made", DERIVED),
        Key(
            "train.augment_strength",
            Real(low=0, high=4),
            "scale of the augmentation's geometric and colour ranges",
            1.0,
            where=(augmented,),
            inert=True,
        ),
        *_declared(_keys_of(catalog.AUGMENTATIONS), "train.augment"),
        Key(
            "train.test_every",
            Whole(1),
            "epochs between extra test passes; they set best_test_acc, which is never used for selection",
            None,
            inert=True,
        ),
        Key(
            "train.view_seed",
            Whole(0),
            "seed of the views; default: the replicate",
            None,
            inert=True,
        ),
    ]


def point_grammar() -> Grammar:
    """All keys of a point, including those of the plugins that are loaded now."""
    seeded = tuple(method.name for method in catalog.METHODS if method.seeded)
    return Grammar.of(
        [
            Key(
                "images.method",
                Choice(catalog.METHODS.names),
                "how the compressed set is made",
                "random",
            ),
            Key("images.ipc", Whole(1), "images per class that the compressed set may store"),
            Key(
                "images.seed",
                Whole(0),
                "seed for choosing images; default: the replicate",
                None,
                where=(Where("images.method", seeded),),
                inert=True,
            ),
            Key(
                "images.encoding",
                Text(r"png|jpeg-([1-9]\d?|100)", "png or jpeg-QUALITY with a quality from 1 to 100"),
                "how a stored image is encoded; sets images_bytes",
                "png",
                inert=True,
            ),
            Key(
                "images.drop_class",
                label_kinds.CLASS,
                "class whose images are left out of the compressed set",
                None,
                inert=True,
            ),
            *_declared(_keys_of(catalog.METHODS), "images.method"),
            Key("labels.kind", Choice(catalog.LABELS.names), "what the student is trained on", "hard"),
            *_declared({kind.name: kind.all_keys for kind in catalog.LABELS}, "labels.kind"),
            Key("student.arch", ARCH, "network of the student"),
            *train_keys(),
        ]
    )


def recipe_values(given: Point) -> dict[str, Value]:
    """Defaults of the recipe in `given`, without keys that a given key excludes."""
    name = given.get("train.recipe", "label-worth")
    values = dict(catalog.RECIPES[name].values)
    for key, rival in EXCLUSIVE_KEYS.items():
        if key in given:
            values.pop(rival, None)
    return values


def resolve(grammar: Grammar, given: Point) -> dict[str, Value]:
    """The point that `given` (canonical values by dotted key) describes.

    Raises `InputError` for a missing required key and for values that exclude each other; the message
    starts with the dotted key.
    """
    defaults = recipe_values(given)
    point: dict[str, Value] = {}
    for name, key in grammar.keys.items():
        if not key.applies(point):
            continue
        value = given.get(name, defaults.get(name, key.default))
        if value is REQUIRED or value is DERIVED:
            raise InputError(f"{name} is missing; it must be {key.kind.describe()}")
        if value is not None:
            point[name] = value
    if "train.epochs" not in point and "train.steps" not in point:
        raise InputError("train.epochs is missing; give train.epochs or train.steps")
    _check_together(point)
    return point


def _check_together(point: Point) -> None:
    """Raise `InputError` for values of a point that exclude each other."""
    kind, method = catalog.LABELS[str(point["labels.kind"])], catalog.METHODS[str(point["images.method"])]
    _check_loss(point, kind)
    _check_labels(point, kind, method)
    if "labels.inner_steps" in point and point["labels.inner_steps"] < point["labels.unroll_steps"]:
        raise InputError(
            f"labels.unroll_steps is {point['labels.unroll_steps']}, but must be at most labels.inner_steps, "
            f"{point['labels.inner_steps']}"
        )
    if "train.steps" in point and "train.test_every" in point and point["train.steps"] == 0:
        raise InputError("train.test_every is given, but train.steps is 0; remove it")


def _check_loss(point: Point, kind: catalog.LabelKind) -> None:
    if "train.loss" not in point:
        return
    loss = catalog.LOSSES[str(point["train.loss"])]
    if not loss.soft:
        raise InputError(
            f"train.loss is {loss.name}, which does not support soft labels; it must be "
            f"{one_of(entry.name for entry in catalog.LOSSES if entry.soft)} where labels.kind is {kind.name}"
        )
    able = [other.name for other in catalog.LABELS if other.offers_logits]
    loss.check(kind.name, kind.offers_logits, able)


def _check_labels(point: Point, kind: catalog.LabelKind, method: catalog.Method) -> None:
    needs = kind.needs_at(point)
    if "soft_labels" in needs and not method.brings_labels and "labels.path" not in point:
        bringing = one_of(m.name for m in catalog.METHODS if m.brings_labels)
        raise InputError(
            f"labels.kind is {kind.name}, but sets of the method {method.name} have no soft labels; give a "
            f"file of labels as labels.path, or choose images.method {bringing}"
        )
    if "labelled_views" in needs and "labels.path" not in point:
        raise InputError(f"labels.path is missing; labels.kind {kind.name} reads views from a folder")
    if "labelled_views" in needs and point["train.augment"]:
        raise InputError(
            f"train.augment is {', '.join(point['train.augment'])}, but labels.kind is {kind.name}, whose "
            "files define how each view is made; set train.augment to none"
        )


def key_error(grammar: Grammar, name: str, where: str) -> str:
    """One sentence about an unknown key, with the keys of its block and the closest known key."""
    block, _, rest = name.partition(".")
    if block not in BLOCKS or not rest:
        return (
            f"{where}{name} is not a key; keys begin with {one_of(b + '.' for b in BLOCKS)}"
            f"{did_you_mean(name, grammar.keys)}"
        )
    return (
        f"{where}{name} is not a key of {block}; choose "
        f"{one_of(grammar.block(block))}{did_you_mean(name, grammar.keys)}"
    )


def cast(grammar: Grammar, name: str, given: Value, where: str = "") -> Value:
    """Canonical value of one key; the `InputError` gives `where` + key, the value and what is allowed."""
    if name not in grammar.keys:
        raise InputError(key_error(grammar, name, where))
    try:
        return grammar.keys[name].cast(given)
    except ValueError as error:
        raise InputError(f"{where}{name} {error}") from None


def flat_value(value: Value) -> Value:
    """A point's value as shown in tables and MLflow: lists joined by `+`, an empty list as none."""
    if isinstance(value, tuple):
        return "+".join(str(item) for item in value) or "none"
    return value


def unused(grammar: Grammar, given: Mapping[str, Value], used: set[str]) -> str | None:
    """A sentence about the first given key that applies to no point, or None."""
    for name, value in given.items():
        if name in used or (name == "train.loss" and value in ("ce", ("ce",))):
            continue
        key = grammar.keys[name]
        shown = show(value[0] if isinstance(value, tuple) and value else value)
        return (
            f"{name} ({shown}) applies to no point of this study; it applies where "
            f"{key.conditions()}; remove it or change that"
        )
    return None
