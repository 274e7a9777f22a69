"""A student's worker: what it reports when it cannot go on, before it ends."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from raydc.errors import StoreError
from raydc.orchestration import trainable
from raydc.orchestration.trainable import StudentWorker, pack_bundle
from raydc.spec.plan import Plan
from raydc.spec.result import Row, make_row
from raydc.spec.study import StudySpec
from raydc.worker.packs import Attempt
from raydc.worker.workbench import Workbench


@pytest.fixture
def bundle(small: Callable[..., StudySpec], planned: Callable[[StudySpec], Plan]) -> list[Attempt]:
    return [(planned_one, 1) for planned_one in planned(small("seeds=3")).evaluations]


class Place:
    """A site whose workbench is there, or the error with which it is set up."""

    def __init__(self, bench: Workbench | Exception) -> None:
        self._bench = bench

    def bench(self, labeller: object) -> Workbench:
        del labeller
        if isinstance(self._bench, Exception):
            raise self._bench
        return self._bench


def worker(bundle: list[Attempt], bench: Workbench | Exception) -> StudentWorker:
    made = StudentWorker.__new__(StudentWorker)  # Tune's own constructor logs to its folders
    context: Any = Place(bench)
    made.setup({"bundle": pack_bundle(bundle), "to_come": 0}, context, study="small", dataset_id="d")
    return made


def test_a_worker_that_cannot_be_set_up_says_why_and_ends(bundle: list[Attempt]) -> None:
    one = worker(bundle, RuntimeError("no kernel image\nfor this device"))
    assert one.step() == {
        "rows": "[]",
        "done": False,
        "broken": "RuntimeError: no kernel image for this device",
    }
    with pytest.raises(RuntimeError, match="no kernel image"):
        one.step()


def test_a_bundle_that_cannot_be_read_is_told_too(bundle: list[Attempt], bench: Workbench) -> None:
    one = worker(bundle, bench)
    assert one.reset_config({"bundle": "not a bundle", "to_come": 0})
    said = one.step()
    assert said["broken"].startswith(("Error: ", "error: "))
    assert not said["done"]


def test_a_worker_that_breaks_hands_in_what_it_has(
    bundle: list[Attempt], bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(given: list[Attempt], *_: object, study: str, **__: object) -> Iterator[list[Row]]:
        first, attempts = given[0]
        yield [
            make_row(
                first, study=study, dataset_id="d", started_at=0.0, finished_at=1.0, attempts=attempts,
                status="finished",
            )
        ]  # fmt: skip
        raise KeyError("lost")

    monkeypatch.setattr(trainable, "attempt_all", breaks)
    monkeypatch.setattr(trainable, "REPORT_SECONDS", math.inf)  # the row and the error are in one step
    one = worker(bundle, bench)
    said = one.step()
    assert [row["evaluation_id"] for row in json.loads(said["rows"])] == [bundle[0][0].id]
    assert (said["done"], said["broken"]) == (False, "KeyError: 'lost'")
    with pytest.raises(KeyError):
        one.step()
    assert one.reset_config({"bundle": pack_bundle(bundle[1:]), "to_come": 0})
    assert one.step()["broken"] == "KeyError: 'lost'"


def test_a_store_that_does_not_answer_fails_the_bundle_and_the_worker_lives(bundle: list[Attempt]) -> None:
    said = worker(bundle, StoreError("the store does not answer")).step()
    rows = json.loads(said["rows"])
    assert [row["error"] for row in rows] == ["StoreError: the store does not answer"] * 3
    assert said["done"]
    assert "broken" not in said
