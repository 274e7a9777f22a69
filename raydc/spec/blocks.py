"""The blocks of a study file as specs: base, grid, seeds, dataset, teachers and scorer.

All given values are checked here, also those of keys that do not apply and are dropped later.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from raydc.errors import InputError, did_you_mean, one_of
from raydc.spec import catalog, point
from raydc.spec.code import code_of_training
from raydc.spec.evaluation import DatasetSpec, TeacherSpec
from raydc.spec.keys import LARGEST, Grammar, Key, Many, OneOf, Point, Text, Value, Whole, show
from raydc.spec.study_file import MOST_REPLICATES, SEEDS, SOURCES, DatasetFile, StudyFile

TEACHER_DEFAULT_RECIPE = "mtt-expert"
TEACHER_ONLY = Grammar.of(
    [
        Key("arch", point.ARCH, "network of the teacher"),
        Key(
            "keep",
            OneOf((Many(Whole(0), form="a list of epochs"), Text("all", "all"))),
            "epochs whose checkpoints may be used; default: the epochs that the study uses",
            None,
        ),
        Key("count", Whole(1), "number of networks, which differ in their seed", 1),
        Key(
            "checkpoint",
            Text(form="the path of a file"),
            "trained weights to use instead of training; replay_buffer_N.pt, or a folder of such files, "
            "holds trajectories",
            None,
        ),
        Key(
            "weights",
            Text(form="a tag of published weights"),
            "published weights to use instead of training",
            None,
        ),
    ]
)


def cast_block(grammar: Grammar, given: Mapping[str, Any], where: str, prefix: str = "") -> dict[str, Value]:
    """Canonical values of dotted keys.

    Raises `InputError` if one layer gives two keys that exclude each other.
    """
    values = {}
    for name, value in given.items():
        values[prefix + name] = _cast(grammar, prefix + name, value, where, prefix)
    for key, rival in point.EXCLUSIVE_KEYS.items():
        if values.get(key) is not None and values.get(rival) is not None:
            raise InputError(
                f"{where}{key.removeprefix(prefix)} and {rival.removeprefix(prefix)} exclude each "
                "other; keep one"
            )
    return values


def _cast(grammar: Grammar, name: str, given: Value, where: str, prefix: str = "") -> Value:
    if name not in grammar.keys:
        raise InputError(point.key_error(grammar, name, where))
    try:
        return grammar.keys[name].cast(given)
    except ValueError as error:
        raise InputError(f"{where}{name.removeprefix(prefix)} {error}") from None


def grids_of(
    grammar: Grammar, given: dict[str, Any] | list[dict[str, Any]] | None, source: str
) -> tuple[dict[str, tuple[Value, ...]], ...]:
    if not given:
        return ({},)
    listed = given if isinstance(given, list) else [given]
    grids = []
    for i, grid in enumerate(listed):
        where = f"{source}: grid.{i}." if isinstance(given, list) else f"{source}: grid."
        values: dict[str, tuple[Value, ...]] = {}
        for name, choices in grid.items():
            if name not in grammar.keys:
                raise InputError(point.key_error(grammar, name, where))
            if isinstance(choices, dict):
                raise InputError(f"{where}{name} is a mapping, but a grid has dotted keys, each with a list")
            if choices == []:
                raise InputError(
                    f"{where}{name} is an empty list, but must have at least one value; give a "
                    "value or remove the key"
                )
            listed_values = choices if isinstance(choices, list) else [choices]
            cast = [_cast(grammar, name, value, where) for value in listed_values]
            values[name] = tuple(dict.fromkeys(cast))
        for key, rival in point.EXCLUSIVE_KEYS.items():
            if key in values and rival in values:
                raise InputError(f"{where}{key} and {rival} exclude each other; keep one")
        grids.append(values)
    return tuple(grids)


def seeds_of(given: int | list[int], source: str) -> tuple[int, ...]:
    if isinstance(given, list):
        allowed = bool(given) and min(given) >= 0 and max(given) <= LARGEST and len(set(given)) == len(given)
    else:
        allowed = 1 <= given <= MOST_REPLICATES
    if not allowed:
        raise InputError(f"{source}: seeds is {show(given)}, but must be {SEEDS}")
    return tuple(given) if isinstance(given, list) else tuple(range(given))


def dataset_of(file: DatasetFile, source: str) -> DatasetSpec:
    sources = [name for name in SOURCES if getattr(file, name) is not None]
    if len(sources) != 1:
        raise InputError(
            f"{source}: dataset gives {len(sources)} of {one_of(SOURCES)}, but must give exactly one"
        )
    kind = sources[0]
    location = getattr(file, kind)
    default_fraction = 0.1
    if kind == "name":
        try:
            default_fraction = catalog.DATASETS[location].val_fraction
        except InputError as error:
            raise InputError(
                f"{source}: dataset.name: {error}, or give dataset.parquet or dataset.folder"
            ) from None
    elif file.root is not None:
        raise InputError(f"{source}: dataset.root can be used with dataset.name only; remove it")
    classes = file.classes
    if isinstance(classes, int) and classes < 2:
        raise InputError(f"{source}: dataset.classes is {classes}, but must be at least 2")
    if isinstance(classes, list) and (len(classes) < 2 or len(set(classes)) < len(classes)):
        raise InputError(
            f"{source}: dataset.classes is {show(classes)}, but must be at least two different classes"
        )
    return DatasetSpec(
        name=location if kind == "name" else Path(location).name or location,
        source="named" if kind == "name" else kind,
        location=file.root if kind == "name" else location,
        resolution=file.resolution,
        zca=file.zca,
        val_fraction=default_fraction if file.val_fraction is None else file.val_fraction,
        classes=tuple(classes) if isinstance(classes, list) else classes,
        train_limit=file.train_limit,
        cache_limit_gib=file.cache_limit_gib,
    )


def teachers_of(grammar: Grammar, file: StudyFile, source: str) -> dict[str, TeacherSpec]:
    if file.teacher is not None and file.teachers is not None:
        raise InputError(f"{source}: teacher and teachers exclude each other; keep one")
    if file.teacher is not None:
        return {"teacher": teacher_spec(grammar, "teacher", file.teacher, f"{source}: teacher.")}
    teachers = {}
    for name, given in (file.teachers or {}).items():
        teachers[name] = teacher_spec(grammar, name, given, f"{source}: teachers.{name}.")
    return teachers


def scorer_of(
    grammar: Grammar,
    given: str | dict[str, Any] | None,
    teachers: Mapping[str, TeacherSpec],
    source: str,
) -> TeacherSpec | None:
    if given is None:
        return None
    if isinstance(given, str):
        if given not in teachers:
            raise InputError(
                f"{source}: scorer is {given!r}, but must be a block or the name of a teacher"
                f" ({one_of(teachers) or 'there is none'})"
            )
        return teachers[given]
    return teacher_spec(grammar, "scorer", given, f"{source}: scorer.")


def teacher_spec(grammar: Grammar, name: str, given: Mapping[str, Any], where: str) -> TeacherSpec:
    """The teacher that a block describes; `where` is the prefix of every error message."""
    own = {key: value for key, value in given.items() if key in TEACHER_ONLY.keys}
    trained = {key: value for key, value in given.items() if key not in own}
    _check_teacher_keys(grammar, trained, where)
    cast_own = {key: _cast(TEACHER_ONLY, key, value, where) for key, value in own.items()}
    if "arch" not in cast_own:
        raise InputError(f"{where}arch is missing; it must be {point.ARCH.describe()}")
    if any(cast_own.get(key) is not None for key in ("checkpoint", "weights")):
        return _given_teacher(name, cast_own, [*trained, *given], where)
    train = cast_block(grammar, trained, where, prefix="train.")
    if train.get("train.loss") not in (None, "ce"):
        raise InputError(
            f"{where}loss is {train['train.loss']}, but a teacher is trained on hard labels; use ce"
        )
    train.setdefault("train.recipe", TEACHER_DEFAULT_RECIPE)
    resolved = _resolve_training(grammar, train, where)
    epochs = resolved["train.epochs"]
    keep = cast_own.get("keep")
    if isinstance(keep, tuple) and (too_late := [epoch for epoch in keep if epoch > epochs]):
        raise InputError(
            f"{where}keep has {too_late[0]}, but the teacher is trained for {epochs} epochs; choose from "
            f"0 to {epochs}"
        )
    return TeacherSpec(
        name=name,
        arch=cast_own["arch"],
        code=code_of_training(cast_own["arch"], resolved),
        train=resolved,
        keep=tuple(range(epochs + 1)) if keep == "all" else keep and tuple(sorted(set(keep))),
        count=cast_own.get("count", 1),
    )


def _check_teacher_keys(grammar: Grammar, trained: Iterable[str], where: str) -> None:
    train_block = grammar.block("train")
    excluded = ("steps", "test_every", "view_seed")
    for key in trained:
        if key not in train_block or key in excluded:
            known = [k for k in (*TEACHER_ONLY.keys, *train_block) if k not in excluded]
            reason = "; teachers are trained for epochs" if key == "steps" else did_you_mean(key, known)
            raise InputError(f"{where}{key} is not a key of a teacher; choose {one_of(known)}{reason}")


def _given_teacher(name: str, own: Mapping[str, Value], given: Sequence[str], where: str) -> TeacherSpec:
    """A teacher that this study does not train.

    own: values of `TEACHER_ONLY` keys; given: the given training keys, then all given keys.
    """
    elsewhere = [key for key in ("checkpoint", "weights") if own.get(key) is not None]
    arch = own["arch"]
    chosen = TeacherSpec(name, arch, code=code_of_training(arch, {}), **{elsewhere[0]: own[elsewhere[0]]})
    allowed = {"arch", *elsewhere[:1], *(("count",) if chosen.is_buffer else ())}
    if unusable := [key for key in given if key not in allowed and own.get(key, key) is not None]:
        raise InputError(
            f"{where}{unusable[0]} cannot be used with {elsewhere[0]}, because this teacher is not trained; "
            "remove one of them"
        )
    return replace(chosen, count=own.get("count", 1))


def _resolve_training(grammar: Grammar, given: Point, where: str) -> dict[str, Value]:
    """Values of all `train` keys of a network that is trained on hard labels."""
    defaults = point.recipe_values(given)
    if "train.steps" in defaults:
        raise InputError(
            f"{where}recipe is {given['train.recipe']}, which counts steps; teachers are trained for "
            "epochs, so give epochs"
        )
    resolved: dict[str, Value] = {}
    context = {"labels.kind": "hard"}
    for name, key in ((k.name, k) for k in grammar.block("train").values()):
        if not key.applies(resolved | context):
            if name in given and name != "train.loss":
                raise InputError(
                    f"{where}{name.removeprefix('train.')} ({show(given[name])}) does not apply; it "
                    f"applies where {key.conditions().replace('train.', '')}"
                )
            continue
        value = given.get(name, defaults.get(name, key.default))
        if value is not None:
            resolved[name] = value
    return resolved
