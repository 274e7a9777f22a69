"""What must be true of a study however it was tormented, counted from its files and from MLflow."""

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
"""That MLflow gives at once."""


class Start(NamedTuple):
    """A student whose training began."""

    at: float
    """Seconds of the machine's monotonic clock."""
    process: int
    evaluation: str


@dataclass(frozen=True)
class Verdict:
    """What was counted; a study that kept all promises has `trainings` and zeros."""

    trainings: int
    """Students whose training began."""
    lost: int
    """Evaluations of the plan without a finished row."""
    doubled: int
    """Finished rows beyond the first of an evaluation."""
    duplicates: int
    """Trainings that began when the evaluation's result was in the ledger."""
    damaged: int
    """Lines of the ledger that cannot be read."""
    unrecorded: int
    """Evaluations without a run in MLflow that is finished."""
    recorded_twice: int
    """Runs in MLflow beyond the first of an evaluation."""
    missing_rows: int
    """Evaluations that results.parquet does not hold exactly once, as finished."""
    changed: int
    """Evaluations whose test accuracy is not, bit for bit, that of the calm run."""

    @property
    def kept(self) -> bool:
        """Whether every promise was kept."""
        return not any(value for name, value in asdict(self).items() if name != "trainings")


def read_starts(path: Path) -> list[Start]:
    """The lines that benchmarks.chaos.counting wrote, in the order of time."""
    if not path.exists():
        return []
    lines = (line.split() for line in path.read_text().splitlines())
    return sorted(Start(float(at), int(process), evaluation) for at, process, evaluation in lines)


def finished_rows(folder: Path) -> tuple[list[Row], int]:
    """Every finished row of a ledger, doubles included, and the number of lines that cannot be read."""
    path = folder / FILE
    lines = path.read_bytes().splitlines() if path.exists() else []
    rows = [decode(line) for line in lines]
    return [row for row in rows if row is not None and row["status"] == FINISHED], rows.count(None)


def trained_again(starts: Iterable[Start], seen: Mapping[str, float]) -> int:
    """Trainings that began after their evaluation's finished row was `seen` in the ledger."""
    return sum(1 for start in starts if start.at > seen.get(start.evaluation, float("inf")))


def in_flight(
    starts: Sequence[Start], driver_starts: Sequence[float], seen: Mapping[str, float]
) -> list[int]:
    """For each driver that another followed: evaluations that its workers began and that had no row then.

    Workers live a moment longer than their driver: what one begins is its first driver's, whenever it begins.
    """
    born: dict[int, float] = {}
    for start in starts:
        born.setdefault(start.process, start.at)
    return [
        len({s.evaluation for s in starts if begin <= born[s.process] < end <= seen.get(s.evaluation, end)})
        for begin, end in pairwise(driver_starts)
    ]


def mlflow_runs(uri: str, experiment: str) -> Counter[tuple[str, str]]:
    """How many runs there are of each (evaluation, status)."""
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
    """Count what a study's `folder` holds beside the test accuracies of the plan's evaluations by id.

    `seen` tells when each finished row was first in the ledger; `recorded` is of `mlflow_runs`.
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
