"""Fault tests: what they draw, what their checker finds, and one small study that is tormented for real."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.chaos.bed import Bed
from benchmarks.chaos.check import Start, Verdict, check, finished_rows, in_flight, mlflow_runs, read_starts
from benchmarks.chaos.faults import FAULTS, Fault, inflict, schedule
from raydc.tracking.ledger import FILE, encode
from raydc.tracking.study_folder import RESULTS

ACCURACIES = {"a": 0.5, "b": 0.25, "c": 0.75}
RECORDED = {(name, "FINISHED"): 1 for name in ACCURACIES}
SEEN = {"a": 10.0, "b": 20.0, "c": 30.0}
STARTS = [Start(1.0, 7, "a"), Start(11.0, 7, "b"), Start(12.0, 8, "c"), Start(25.0, 9, "c")]


def row(name: str, accuracy: float | None = None, status: str = "finished") -> bytes:
    known = ACCURACIES[name] if accuracy is None else accuracy
    return encode({"evaluation_id": name, "status": status, "test_acc": known})


def write_table(folder: Path, names: str) -> None:
    columns = {"evaluation_id": list(names), "status": ["finished"] * len(names)}
    pq.write_table(pa.table(columns), folder / RESULTS)


@pytest.fixture
def verdict(tmp_path: Path) -> Callable[..., Verdict]:
    """`verdict(lines, ...)`: what the checker says of a ledger of some lines."""

    def of(
        *lines: bytes,
        table: str = "abc",
        starts: list[Start] = STARTS,
        recorded: dict[tuple[str, str], int] = RECORDED,
    ) -> Verdict:
        (tmp_path / FILE).write_bytes(b"".join(lines))
        write_table(tmp_path, table)
        return check(tmp_path, ACCURACIES, starts, SEEN, recorded)

    return of


def test_a_study_that_kept_its_promises(verdict: Callable[..., Verdict]) -> None:
    # One failed at first, and one was begun twice since its worker died.
    found = verdict(row("a", status="failed"), *map(row, "abc"))
    assert found.kept
    assert found.trainings == 4


def test_what_the_checker_finds(verdict: Callable[..., Verdict]) -> None:
    good = [row(name) for name in "abc"]
    assert verdict(*good[:2]).lost == 1
    assert verdict(*good[:2], row("c", status="failed")).lost == 1
    assert verdict(*good, good[0]).doubled == 1
    assert verdict(*good, good[1].replace(b"0.25", b"0.35")).damaged == 1
    assert verdict(*good, starts=[*STARTS, Start(10.5, 9, "a")]).duplicates == 1
    assert verdict(*good[:2], row("c", 0.7500001)).changed == 1
    assert verdict(*good, table="ab").missing_rows == 1
    assert verdict(*good, table="abcc").missing_rows == 1
    assert verdict(*good, recorded={**RECORDED, ("a", "FINISHED"): 2}).recorded_twice == 1
    assert verdict(*good, recorded={**RECORDED, ("a", "RUNNING"): 1}).recorded_twice == 1
    assert verdict(*good, recorded={k: n for k, n in RECORDED.items() if k[0] != "b"}).unrecorded == 1
    assert not verdict(*good[:2]).kept


def test_what_was_in_flight_when_a_driver_was_killed() -> None:
    # The second driver began at 15: c was under way and was begun again; b's row came before the kill.
    assert in_flight(STARTS, [0.0, 15.0, 40.0], {**SEEN, "b": 14.0}) == [1, 0]
    assert in_flight(STARTS, [0.0, 15.0, 40.0], {"a": 10.0, "b": 14.0}) == [1, 1]
    # A worker of the first driver began another one in its last moment.
    late = sorted([*STARTS, Start(15.1, 8, "b")])
    assert in_flight(late, [0.0, 15.0, 40.0], {"a": 10.0, "b": 35.0, "c": 30.0}) == [2, 0]
    assert in_flight(STARTS, [0.0], SEEN) == []


def test_a_schedule_is_that_of_its_seed() -> None:
    kinds = list(FAULTS)
    drawn = [schedule(seed, 300, kinds, 6) for seed in range(40)]
    assert drawn == [schedule(seed, 300, kinds, 6) for seed in range(40)]
    assert len({str(faults) for faults in drawn}) == 40
    for faults in drawn:
        assert len({fault.kind for fault in faults}) == 6
        assert [fault.after for fault in faults] == sorted(fault.after for fault in faults)
        assert all(0 <= fault.after < 300 for fault in faults)
    times = Counter(fault.kind for faults in drawn for fault in faults)
    assert set(times) == set(kinds)
    assert any(fault.after == 0 and fault.kind == "driver killed" for faults in drawn for fault in faults)


@pytest.mark.command
@pytest.mark.ray
@pytest.mark.mlflow
@pytest.mark.slow
def test_a_study_under_faults_ends_with_every_result_once(tmp_path: Path) -> None:
    faults = [
        Fault("student killed", after=2, delay=0.0, draw=0.0),
        Fault("bit flipped", after=6, delay=0.1, draw=0.3),
        Fault("line torn", after=14, delay=0.0, draw=0.6),
    ]
    bed = Bed(tmp_path / "small", "small", 24, steps=100, limit_seconds=500)
    try:
        bed.begin()
        assert [inflict(fault, bed) for fault in faults] == [True] * 3
        bed.finish()
    finally:
        bed.close()
    rows, _ = finished_rows(bed.out)
    # Accuracies are compared with those of a calm study by `make chaos`; here with themselves.
    plan = {found["evaluation_id"]: found["test_acc"] for found in rows}
    starts = read_starts(bed.starts)
    recorded = mlflow_runs(f"sqlite:///{bed.out}/mlflow.db", "small")
    verdict = check(bed.out, plan, starts, bed.seen, recorded)
    assert verdict.kept, (verdict, (bed.folder / "driver.log").read_text())
    assert len(plan) == 24
    assert verdict.trainings > 24
    assert bed.codes == [0]
    assert len(bed.driver.starts) == 3
    assert sum(in_flight(starts, bed.driver.starts, bed.seen)) <= verdict.trainings - 24
