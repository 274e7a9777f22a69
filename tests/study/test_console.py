"""Progress where there is no terminal: a line when there is news, and not too often."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from raydc.study import console
from raydc.study.console import LINE_SECONDS, LiveProgress
from raydc.study.pace import RECENT_SECONDS, per_minute, rate


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    return now


def told(clock: list[float], *steps: float) -> list[str]:
    """The lines of a stage of four epochs that is told `steps`, slowly enough for a line each."""
    text = io.StringIO()
    progress = LiveProgress(Console(file=text, force_terminal=False))
    progress.stage("teachers", 4, "epochs")
    for done in steps:
        clock[0] += LINE_SECONDS + 0.1
        progress.advance(done)
    return text.getvalue().splitlines()


def test_a_stage_that_does_not_move_is_told_once(clock: list[float]) -> None:
    assert told(clock, 0, 0, 0) == ["teachers: 4 epochs"]
    lines = told(clock, 0, 1, 1, 1, 4, 4)
    assert lines == ["teachers: 4 epochs", "teachers: 1/4 epochs", "teachers: 4/4 epochs"]


def test_news_that_come_too_fast_are_told_later(clock: list[float]) -> None:
    text = io.StringIO()
    progress = LiveProgress(Console(file=text, force_terminal=False))
    progress.stage("teachers", 4, "epochs")
    for done in (1, 2, 3):
        progress.advance(done)
    clock[0] += LINE_SECONDS + 0.1
    progress.advance(3)
    progress.note("said at once")
    progress.note("said at once")
    assert text.getvalue().splitlines()[1:] == ["teachers: 3/4 epochs", "said at once", "said at once"]


def test_the_rate_does_not_count_the_start_of_the_workers(clock: list[float]) -> None:
    text = io.StringIO()
    progress = LiveProgress(Console(file=text, force_terminal=False))
    progress.stage("evaluations", 100, "evaluations")
    row = {"evaluation_id": "e", "status": "finished", "test_acc": 0.5}
    for waited, count in ((90, 4), (30, 10), (60, 20)):
        clock[0] += waited
        progress.results([row] * count, 30.0)
    lines = [line.removeprefix("evaluations: ") for line in text.getvalue().splitlines()[1:]]
    assert lines == [
        "4/100, best 50.0 %, 30 s left",
        "14/100, 20/min, best 50.0 %, 30 s left",
        "34/100, 20/min, best 50.0 %, 30 s left",
    ]


def test_the_rate_is_one_of_late() -> None:
    assert per_minute([]) is per_minute([7.0]) is per_minute([7.0, 7.0]) is None
    assert per_minute([0.0, 2.0, 4.0]) == 30.0
    assert per_minute([0.0] * 64 + [60.0] * 64) == 64.0, "bundles end at one time"
    assert per_minute([0.0, 2 * RECENT_SECONDS]) == 0.05, "students that take long have a rate too"
    assert per_minute([0.0, 1.0, 2 * RECENT_SECONDS, 2 * RECENT_SECONDS + 6.0]) == 10.0


def test_a_rate_has_the_digits_that_matter() -> None:
    assert [rate(given) for given in (0.0523, 1.26, 9.96, 39.6, 1234.5)] == [
        "0.052",
        "1.3",
        "10",
        "40",
        "1,234",
    ]
