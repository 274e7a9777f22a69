"""Invariants of a study under faults, counted from its files and from MLflow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq
from mlflow import MlflowClient

from raydc.spec.result import FINISHED, Row
from raydc.tracking.ledger import FILE, decode
from raydc.tracking.study_folder import RESULTS

MOST_RUNS = 50_000
"""Largest number of runs that MLflow returns at once."""


class Start(NamedTuple):
    """The start of a student's training."""

    at: float
    """Seconds of the machine's monotonic clock."""
    process: int
    evaluation: str


@dataclass(frozen=True)
class Verdict:
    """Counts of violations; all are zero, except `trainings`, if every invariant holds."""

    trainings: int
    """Number of student trainings that started."""
    lost: int
    """Number of evaluations of the plan without a finished row."""
    doubled: int
    """Number of finished rows beyond the first of an evaluation."""
    duplicates: int
    """Number of trainings that started after the evaluation's result was in the ledger."""
    damaged: int
    """Number of unreadable lines in the ledger."""
    unrecorded: int
    """Number of evaluations without a finished run in MLflow."""
    recorded_twice: int
    """Number of runs in MLflow beyond the first of an evaluation."""
    missing_rows: int
    """Number of evaluations that are not in results.parquet exactly once, as finished."""
    changed: int
    """Number of evaluations whose test accuracy is not bit-identical to that of the run without faults."""

    @property
    def kept(self) -> bool:
        """Whether every invariant holds."""
        return not any(value for name, value in asdict(self).items() if name != "trainings")


def read_starts(path: Path) -> list[Start]:
    """The lines that benchmarks.chaos.counting wrote, in the order of time."""
    if not path.exists():
        return []
    lines = (line.split() for line in path.read_text().splitlines())
    return sorted(Start(float(at), int(process), evaluation) for at, process, evaluation in lines)


def finished_rows(folder: Path) -> tuple[list[Row], int]:
    """All finished rows of a ledger, including duplicates, and the number of unreadable lines."""
    path = folder / FILE
    lines = path.read_bytes().splitlines() if path.exists() else []
    rows = [decode(line) for line in lines]
    return [row for row in rows if row is not None and row["status"] == FINISHED], rows.count(None)


def trained_again(starts: Iterable[Start], seen: Mapping[str, float]) -> int:
    """Number of trainings that started after their evaluation's finished row was `seen` in the ledger."""
    return sum(1 for start in starts if start.at > seen.get(start.evaluation, float("inf")))


def in_flight(
    starts: Sequence[Start], driver_starts: Sequence[float], seen: Mapping[str, float]
) -> list[int]:
    """For each driver but the last: the number of evaluations in progress when the next driver started.

    Workers live slightly longer than their driver: an evaluation counts for the driver that started its
    worker.
    """
    born: dict[int, float] = {}
    for start in starts:
        born.setdefault(start.process, start.at)
    return [
        len({s.evaluation for s in starts if begin <= born[s.process] < end <= seen.get(s.evaluation, end)})
        for begin, end in pairwise(driver_starts)
    ]


def mlflow_runs(uri: str, experiment: str) -> Counter[tuple[str, str]]:
    """Number of runs by (evaluation, status)."""
    client = MlflowClient(uri)
    known = client.get_experiment_by_name(experiment)
    if known is None:
        return Counter()
    runs = client.search_runs([known.experiment_id], max_results=MOST_RUNS)
    found = ((run.data.tags.get("raydc.evaluation_id"), run.info.status) for run in runs)
    return Counter((name, status) for name, status in found if name is not None)


def check(
    folder: Path,
    calm: Mapping[str, float],
    starts: Sequence[Start],
    seen: Mapping[str, float],
    recorded: Mapping[tuple[str, str], int],
) -> Verdict:
    """Compare a study's `folder` with the expected test accuracies of the plan's evaluations, by id.

    `seen`: when each finished row was first seen in the ledger; `recorded`: the result of `mlflow_runs`.
    """
    rows, damaged = finished_rows(folder)
    times = Counter(row["evaluation_id"] for row in rows)
    runs: Counter[str] = Counter()
    for (name, _), count in recorded.items():
        runs[name] += count
    return Verdict(
        trainings=len(starts),
        lost=len(calm.keys() - times.keys()),
        doubled=sum(times.values()) - len(times),
        duplicates=trained_again(starts, seen),
        damaged=damaged,
        unrecorded=sum(1 for name in calm if not recorded.get((name, "FINISHED"))),
        recorded_twice=sum(runs.values()) - len(runs),
        missing_rows=_missing(folder / RESULTS, calm),
        changed=len({r["evaluation_id"] for r in rows if r["test_acc"] != calm.get(r["evaluation_id"])}),
    )


def _missing(path: Path, calm: Mapping[str, float]) -> int:
    if not path.exists():
        return len(calm)
    table = pq.read_table(path, columns=["evaluation_id", "status"]).to_pylist()
    times = Counter(row["evaluation_id"] for row in table if row["status"] == FINISHED)
    return sum(1 for name in calm if times[name] != 1) + len(times.keys() - calm.keys())
