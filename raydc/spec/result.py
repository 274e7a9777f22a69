"""Results: one row per evaluation, the same in the ledger, in MLflow and in results.parquet."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeAlias

from raydc import __version__
from raydc.errors import ArtifactError, InputError, did_you_mean
from raydc.spec.code import text_of
from raydc.spec.evaluation import PROTOCOL_VERSION, Evaluation, TeacherSpec
from raydc.spec.plan import Plan, Planned
from raydc.spec.point import BLOCKS, flat_value, point_grammar

Row: TypeAlias = dict[str, Any]
"""A result by column name; values that do not apply are None or absent."""

FINISHED, FAILED, STOPPED = "finished", "failed", "stopped"
"""Values of `status`; results stopped by a scheduler are never reused and not used in fits."""


@dataclass(frozen=True)
class Measured:
    """The measurements of one evaluation; accuracies are fractions, times are seconds."""

    test_acc: float | None
    """Accuracy on the test split after the last step; None for a point of a search, which is not tested."""
    best_test_acc: float | None
    """Best accuracy of the extra test passes of `train.test_every`; None without them."""
    test_acc_by_epoch: tuple[float, ...] | None
    """Accuracy of each extra test pass, ordered by epoch; the first is after `train.test_every` epochs."""
    val_acc: float | None
    """Accuracy on the validation split; None without one."""
    test_loss: float | None
    """Mean cross-entropy on the test split, in nats."""
    train_acc: float
    """Accuracy on the compressed set as stored, with respect to its classes."""
    test_acc_by_class: tuple[float | None, ...] | None
    teacher_test_acc: float | None
    """Mean test accuracy of the networks that labelled; None without a teacher."""
    images_bytes: int
    labels_bytes: int
    steps: int
    """Optimizer steps of the student."""
    train_seconds: float
    """Time from the second step to the last, scaled to all steps; in a pack, divided by the number of
    students."""
    setup_seconds: float
    """Time for loading the set and making the targets and the network."""
    wait_seconds: float
    """Time spent waiting for labels that were not made yet."""
    test_seconds: float
    """Time of the validation and test passes."""
    labels_seconds: float
    """Time that the label passes took when they were made."""
    images_seconds: float
    """Time that the compressed set took when it was made."""
    device: str
    engine: str
    """How the student was trained: eager, compiled, or in a pack with other students."""


MEASURES = tuple(field.name for field in fields(Measured))
LISTS = ("test_acc_by_epoch", "test_acc_by_class")
"""Measures that are lists of numbers."""
IDENTITY = ("evaluation_id", "study", "seed", "status")
RECORD = (
    "trial",
    "attempts",
    "reused_from",
    "started_at",
    "finished_at",
    "protocol_version",
    "raydc_version",
    "mlflow_run_id",
    "error",
    "dataset_id",
    "set_id",
    "labels_id",
)
DATASET_KEYS = ("name", "resolution", "zca", "val_fraction", "classes", "train_limit")


def compact(row: Mapping[str, Any]) -> Row:
    """The row with interned keys and short strings, to save memory when thousands of rows are held."""
    return {
        sys.intern(key): sys.intern(value) if isinstance(value, str) and len(value) < 64 else value
        for key, value in row.items()
    }


def columns(rows: Iterable[Mapping[str, Any]] = ()) -> list[str]:
    """All columns in order: identity, spec keys (all known keys and those in `rows`), measures, record."""
    spec = dict.fromkeys(f"dataset.{key}" for key in DATASET_KEYS)
    spec |= dict.fromkeys(point_grammar().keys)
    fixed = {*IDENTITY, *MEASURES, *RECORD}
    for row in rows:
        for key in row:
            if key not in fixed:
                spec.setdefault(key)
    return [*IDENTITY, *spec, *MEASURES, *RECORD]


def is_spec_column(name: str) -> bool:
    """Whether a column describes what was evaluated, not a result."""
    return "." in name


def spec_columns(evaluation: Evaluation) -> Row:
    """Every spec key that applies, in dotted form."""
    spec: Row = {}
    for key in DATASET_KEYS:
        value = flat_value(getattr(evaluation.dataset, key))
        if value is not None:
            spec[f"dataset.{key}"] = value
    spec |= {key: flat_value(value) for key, value in evaluation.point.items()}
    for role, teacher in (("teacher", evaluation.teacher), ("scorer", evaluation.scorer)):
        if teacher is not None:
            spec |= teacher_columns(role, teacher)
    for block in BLOCKS:
        own = {name: code for name, code in evaluation.code.items() if name.startswith(f"{block}.")}
        if own:
            spec[f"{block}.code"] = text_of(own)
    return spec


def teacher_columns(role: str, teacher: TeacherSpec) -> Row:
    described: Row = {f"{role}.arch": teacher.arch, f"{role}.count": teacher.count}
    described |= {
        f"{role}.{key.removeprefix('train.')}": flat_value(value) for key, value in teacher.train.items()
    }
    for key in ("checkpoint", "weights"):
        if getattr(teacher, key) is not None:
            described[f"{role}.{key}"] = getattr(teacher, key)
    if teacher.code:
        described[f"{role}.code"] = text_of(teacher.code)
    return described


def make_row(
    planned: Planned,
    *,
    study: str,
    dataset_id: str,
    status: str,
    started_at: float,
    finished_at: float,
    attempts: int,
    measured: Measured | None = None,
    error: str | None = None,
) -> Row:
    """The row of an evaluation that ended; times are seconds since 1970."""
    row: Row = {
        "evaluation_id": planned.id,
        "study": study,
        "seed": planned.evaluation.seed,
        "status": status,
        **spec_columns(planned.evaluation),
        **dict.fromkeys(MEASURES),
        "attempts": attempts,
        "reused_from": None,
        "started_at": started_at,
        "finished_at": finished_at,
        "protocol_version": PROTOCOL_VERSION,
        "raydc_version": __version__,
        "error": error,
        "dataset_id": dataset_id,
        "set_id": planned.compressed_set,
        "labels_id": planned.labels_id,
    }
    if measured is not None:
        row |= {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(measured).items()}
    return row | trial_of(planned)


def failed(planned: Planned, *, study: str, dataset_id: str, attempts: int, error: str) -> Row:
    """The row of an evaluation that failed before its student was trained."""
    now = time.time()
    return make_row(
        planned,
        study=study,
        dataset_id=dataset_id,
        status=FAILED,
        started_at=now,
        finished_at=now,
        attempts=attempts,
        error=error,
    )


def trial_of(planned: Planned) -> Row:
    """The column with the search trial that an evaluation belongs to; empty without a search."""
    return {} if planned.origin is None else {"trial": planned.origin.trial}


def untested(row: Mapping[str, Any]) -> bool:
    """Whether a result comes from a search and has no test accuracy, so that a grid cannot reuse it."""
    return row.get("trial") is not None and row.get("test_acc") is None


def lost_artifact(row: Mapping[str, Any]) -> bool:
    """Whether an evaluation failed because an artifact is missing or damaged; it can be made again."""
    return row["status"] == FAILED and str(row["error"]).startswith(f"{ArtifactError.__name__}: ")


def not_started(
    plan: Plan, broken: Mapping[str, str], *, study: str, dataset_id: str
) -> tuple[list[Planned], list[Row]]:
    """The evaluations that can start, and failed rows of those that depend on something `broken`.

    `broken` maps the id of each trajectory, set or label pass that could not be made to the reason.
    """
    able: list[Planned] = []
    lost: list[Row] = []
    for planned in plan.evaluations:
        reason = next((broken[name] for name in planned.needs if name in broken), None)
        if reason is None:
            able.append(planned)
            continue
        text = f"not started: {reason}"
        lost.append(failed(planned, study=study, dataset_id=dataset_id, attempts=0, error=text))
    return able, lost


def reused(row: Mapping[str, Any], planned: Planned, study: str) -> Row:
    """A finished result of another study as a row of `study`."""
    return {
        **row,
        **spec_columns(planned.evaluation),
        "trial": None,
        **trial_of(planned),
        "study": study,
        "reused_from": row.get("reused_from") or row["study"],
        "mlflow_run_id": None,
    }


def check_column(rows: Sequence[Row], name: str, *, numeric: bool = False) -> None:
    """Raise `InputError` if no row has a value of the column `name`."""
    known = sorted({key for row in rows for key, value in row.items() if value is not None})
    if not any(row.get(name) is not None for row in rows):
        raise InputError(
            f"the results have no value of {name!r}{did_you_mean(name, known)}; columns with values "
            f"are {', '.join(known)}"
        )
    if numeric and not all(
        isinstance(row[name], int | float) and not isinstance(row[name], bool)
        for row in rows
        if row.get(name) is not None
    ):
        raise InputError(f"{name!r} does not hold numbers only; choose one of {', '.join(MEASURES)}")
