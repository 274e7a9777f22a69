"""The feeder: every evaluation gets a row, whatever happens to its worker."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from ray.tune.search import Searcher

from raydc.errors import FolderError, StoreError
from raydc.orchestration.bundle_searcher import BundleSearcher, CannotGoOn
from raydc.orchestration.trainable import pack_bundle, unpack_bundle
from raydc.spec.plan import Plan, Planned
from raydc.spec.result import make_row
from raydc.spec.study import StudySpec


class Desk:
    """A feeder with everything it told."""

    def __init__(self, plan: Plan, retries: int, **options: Any) -> None:
        self.rows: list[dict[str, Any]] = []
        self.bundle_searcher = BundleSearcher(
            plan.evaluations,
            cost=lambda _: 1.0,
            workers=1,
            retries=retries,
            study="small",
            dataset_id="d",
            sink=options.pop("sink", self.rows.extend),
            **options,
        )
        self.trials = 0

    def suggest(self) -> tuple[str, Any]:
        self.trials += 1
        return f"t{self.trials}", self.bundle_searcher.suggest(f"t{self.trials}")

    def finish(self, trial: str, bundle: list[tuple[Planned, int]], **values: Any) -> None:
        rows = [
            make_row(
                planned, study="small", dataset_id="d", started_at=0.0, finished_at=1.0, attempts=attempts,
                **{"status": "finished", **values},
            )
            for planned, attempts in bundle
        ]  # fmt: skip
        self.bundle_searcher.on_trial_complete(trial, {"rows": json.dumps(rows)})


@pytest.fixture
def desk(small: Callable[..., StudySpec], planned: Callable[[StudySpec], Plan]) -> Callable[..., Desk]:
    def make(count: int = 4, retries: int = 2, **options: Any) -> Desk:
        return Desk(planned(small(f"seeds={count}")), retries, **options)

    return make


def run(desk: Desk, dies: Callable[[list[tuple[Planned, int]]], bool]) -> int:
    """Run all trials; returns how many died."""
    deaths = 0
    while True:
        trial, config = desk.suggest()
        if config == Searcher.FINISHED:
            return deaths
        bundle = unpack_bundle(config["bundle"])
        if dies(bundle):
            deaths += 1
            desk.bundle_searcher.on_trial_complete(trial, None, error=True)
        else:
            desk.finish(trial, bundle)


def test_a_calm_run_gives_each_evaluation_one_row(desk: Callable[..., Desk]) -> None:
    one = desk(20)
    run(one, lambda _: False)
    assert len({row["evaluation_id"] for row in one.rows}) == len(one.rows) == 20
    assert {row["attempts"] for row in one.rows} == {1}


def test_a_worker_that_dies_once_costs_a_retry(desk: Callable[..., Desk]) -> None:
    one = desk()
    deaths = run(one, lambda bundle: bundle[0][1] == 1)
    assert deaths >= 1
    assert {row["status"] for row in one.rows} == {"finished"}
    assert len(one.rows) == 4
    assert {row["attempts"] for row in one.rows} == {2}


def test_an_evaluation_that_kills_its_worker_fails_alone(desk: Callable[..., Desk]) -> None:
    one = desk(retries=2)
    poison = one.bundle_searcher.queue._waiting[0].id
    run(one, lambda bundle: any(planned.id == poison for planned, _ in bundle))
    by_status = {row["evaluation_id"]: row for row in one.rows}
    assert len(by_status) == 4
    assert by_status[poison]["status"] == "failed"
    assert by_status[poison]["attempts"] == 3
    assert "its worker process died 3 times" in by_status[poison]["error"]
    assert [r["status"] for n, r in by_status.items() if n != poison] == ["finished"] * 3


def test_of_what_a_worker_died_is_said_where_it_said_so_itself(desk: Callable[..., Desk]) -> None:
    one = desk(1, retries=1)
    for error in ("RuntimeError: no GPU", "OSError: no space"):
        trial, _ = one.suggest()
        one.bundle_searcher.on_trial_result(trial, {"rows": "[]", "done": False, "broken": error})
        one.bundle_searcher.on_trial_complete(trial, None, error=True)
    (row,) = one.rows
    assert row["error"] == "WorkerDied: its worker process died 2 times, the last time with OSError: no space"


def test_rows_reported_before_a_death_are_kept(desk: Callable[..., Desk]) -> None:
    one = desk(30)
    one.bundle_searcher.queue.learn(one.bundle_searcher.queue._waiting[0], 0.01)
    trial, config = one.suggest()
    bundle = unpack_bundle(config["bundle"])
    assert len(bundle) > 2
    first, attempts = bundle[0]
    row = make_row(
        first,
        study="small",
        dataset_id="d",
        status="finished",
        started_at=0.0,
        finished_at=0.01,
        attempts=attempts,
    )
    one.bundle_searcher.on_trial_result(trial, {"rows": json.dumps([row])})
    one.bundle_searcher.on_trial_complete(trial, None, error=True)
    run(one, lambda _: False)
    assert len(one.rows) == len({r["evaluation_id"] for r in one.rows}) == 30


def test_nothing_is_offered_while_a_bundle_may_come_back(desk: Callable[..., Desk]) -> None:
    one = desk(1)
    trial, config = one.suggest()
    assert one.suggest()[1] is None
    one.finish(trial, unpack_bundle(config["bundle"]))
    assert one.suggest()[1] == Searcher.FINISHED


def test_only_what_was_under_way_is_charged_for_a_death(desk: Callable[..., Desk]) -> None:
    one = desk(30, retries=0)
    one.bundle_searcher.queue.learn(one.bundle_searcher.queue._waiting[0], 0.01)
    trial, config = one.suggest()
    bundle = unpack_bundle(config["bundle"])
    assert len(bundle) > 2
    one.bundle_searcher.on_trial_complete(trial, None, error=True)
    run(one, lambda _: False)
    by_status = {row["evaluation_id"]: row["status"] for row in one.rows}
    assert [name for name, status in by_status.items() if status == "failed"] == [bundle[0][0].id]
    assert len(by_status) == 30
    failed = next(row for row in one.rows if row["status"] == "failed")
    assert failed["started_at"] == failed["finished_at"]


LACKING = {"status": "failed", "error": "ArtifactError: set/a is not in the store s, or is damaged"}


def test_what_lacks_an_artifact_is_set_aside_and_its_attempts_are_counted_on(
    desk: Callable[..., Desk],
) -> None:
    attempts: dict[str, int] = {}
    for round_ in (1, 2):
        one = desk(1, retries=2, attempts=attempts)
        trial, config = one.suggest()
        ((planned, number),) = unpack_bundle(config["bundle"])
        assert number == round_
        one.finish(trial, [(planned, number)], **LACKING)
        assert one.rows == []
        assert one.bundle_searcher.lost == [planned]
        assert one.suggest()[1] == Searcher.FINISHED
    one = desk(1, retries=2, attempts=attempts)
    trial, config = one.suggest()
    one.finish(trial, unpack_bundle(config["bundle"]), **LACKING)
    assert [(row["status"], row["attempts"]) for row in one.rows] == [("failed", 3)]
    assert one.bundle_searcher.lost == []


def test_what_lacks_an_artifact_has_failed_without_rebuilds(desk: Callable[..., Desk]) -> None:
    one = desk(1, rebuilds=False)
    trial, config = one.suggest()
    one.finish(trial, unpack_bundle(config["bundle"]), **LACKING)
    assert [row["error"] for row in one.rows] == [LACKING["error"]]


@pytest.mark.parametrize("error", [FolderError, StoreError, ArithmeticError])
def test_rows_that_cannot_be_kept_end_the_run_past_everything_that_catches(
    desk: Callable[..., Desk], error: type[Exception]
) -> None:
    def full(rows: object) -> None:
        raise error("the disk is full")

    one = desk(1, sink=full)
    trial, config = one.suggest()
    with pytest.raises(CannotGoOn, match="the disk is full") as caught:
        one.finish(trial, unpack_bundle(config["bundle"]))
    assert isinstance(caught.value.reason, error)
    assert not isinstance(caught.value, Exception)


@pytest.mark.parametrize("jump_seconds", [-3600.0, 24 * 3600.0])
@pytest.mark.parametrize("hangs", [True, False])
def test_what_took_too_long_is_told_from_what_died_whatever_the_clock_says(
    desk: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch, hangs: bool, jump_seconds: float
) -> None:
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    one = desk(1, retries=1, timeout_seconds=5.0)
    wall = time.time()

    def dies(bundle: object) -> bool:
        nonlocal now
        now += 6.0 if hangs else 0.5
        monkeypatch.setattr(time, "time", lambda: wall + jump_seconds)
        return True

    assert run(one, dies) == 2
    (row,) = one.rows
    assert row["error"].startswith("WorkerDied: its worker process died 2 times")
    ended = (
        ", the last time 6 s after it was given the evaluation, whose time limit is 5 s "
        "(resources.evaluation_timeout"
    )
    assert (ended in row["error"]) == hangs
    assert row["started_at"] == row["finished_at"]


def test_no_message_grows_with_the_images_or_the_labels(
    small: Callable[..., StudySpec], planned: Callable[[StudySpec], Plan]
) -> None:
    def bundle(*settings: str) -> int:
        plan = planned(small("seeds=20", *settings))
        return len(pack_bundle([(p, 1) for p in plan.evaluations])) // 20

    few, many = (bundle("base.labels={kind: soft}", f"base.images.ipc={ipc}") for ipc in (1, 60))
    assert abs(few - many) < 20
    assert many < 1000
    views = bundle("base.labels={kind: per_view}", "base.train.steps=5000", "base.images.ipc=60")
    assert views < 1000
