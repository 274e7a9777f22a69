"""Evaluations exported by another user: checked in the same way as those of a study file."""

from __future__ import annotations

import json
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from raydc.errors import InputError, one_of
from raydc.spec import catalog
from raydc.spec.code import code_of
from raydc.spec.evaluation import DatasetSpec, Evaluation, TeacherSpec
from raydc.spec.point import cast, point_grammar, resolve

SOURCES = ("named", "parquet", "folder", "hub")


def received(content: Any) -> Evaluation:
    """The evaluation that the JSON value `content` describes.

    Raises `InputError` for values that a study file may not hold, and `ValueError`, `KeyError`, `TypeError`
    or `AttributeError` for content that is not an evaluation.
    """
    evaluation = Evaluation.from_json(json.dumps(content))
    _check_kinds(evaluation.dataset)
    for teacher in (evaluation.teacher, evaluation.scorer):
        if teacher is not None:
            _check_kinds(teacher)
    if isinstance(evaluation.seed, bool) or not isinstance(evaluation.seed, int) or evaluation.seed < 0:
        raise ValueError(f"seed is {evaluation.seed!r}")
    _check_dataset(evaluation.dataset)
    grammar = point_grammar()
    point = {name: cast(grammar, name, value) for name, value in evaluation.point.items()}
    if resolve(grammar, point) != evaluation.point:
        raise ValueError("it lacks keys that apply, or has keys that do not apply")
    for teacher in (evaluation.teacher, evaluation.scorer):
        for name, value in teacher.train.items() if teacher is not None else ():
            cast(grammar, name, value)
    if code_of(point) != evaluation.code:
        raise InputError(
            "its plugins differ from those that it was planned with; give the same files in RAYDC_PLUGINS"
        )
    return evaluation


def _check_kinds(spec: DatasetSpec | TeacherSpec) -> None:
    """Raise `TypeError` for a field whose value does not have the declared type."""
    for name, hint in get_type_hints(type(spec)).items():
        value = getattr(spec, name)
        kinds = {
            get_origin(kind) or kind for kind in (get_args(hint) if isinstance(hint, UnionType) else (hint,))
        }
        if float in kinds:
            kinds.add(int)
        # A bool is an int in Python, but not a number in JSON.
        fits = bool in kinds if isinstance(value, bool) else isinstance(value, tuple(kinds))
        if not fits:
            raise TypeError(f"{name} is {value!r}")


def _check_dataset(spec: DatasetSpec) -> None:
    if spec.source not in SOURCES:
        raise InputError(f"dataset.source is {spec.source!r}, but must be {one_of(SOURCES)}")
    if spec.source == "named" and spec.name not in catalog.DATASETS:
        raise InputError(f"dataset.name is {spec.name!r}, but must be {one_of(catalog.DATASETS.names())}")
    if spec.source != "named" and spec.location is None:
        raise InputError(f"dataset.location is missing; the source {spec.source} needs it")
    if spec.resolution is not None and not 1 <= spec.resolution <= 4096:
        raise InputError(f"dataset.resolution is {spec.resolution}, but must be from 1 to 4096")
    if not 0 <= spec.val_fraction < 1:
        raise InputError(f"dataset.val_fraction is {spec.val_fraction}, but must be at least 0 and below 1")
