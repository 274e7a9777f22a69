"""Steps of work under way, and how fast they come."""

from __future__ import annotations

import pytest

from raydc.orchestration.progress import RECENT_SECONDS, Steps


def test_steps_of_several_pieces_are_added() -> None:
    steps = Steps()
    steps.begin("a", 10)
    steps.begin("b", 1)  # it does not know how many it takes
    assert (steps.done, steps.total, steps.per_minute) == (0, 11, None)
    steps.report(0.0, "a", 4, 10)
    steps.report(1.0, "b", 0, 50)
    assert (steps.done, steps.total) == (4, 60)
    assert steps.of(["b"]) == (0, 50)
    steps.finish(2.0, "b")
    assert (steps.done, steps.total) == (54, 60)


def test_what_an_earlier_run_did_does_not_count_for_the_rate() -> None:
    steps = Steps()
    steps.begin("a", 2000)
    steps.report(0.0, "a", 1000, 2000)
    assert steps.per_minute is None
    steps.report(30.0, "a", 1010, 2000)
    assert steps.per_minute == pytest.approx(20)
    # A process that begins anew may tell of less than was heard.
    steps.report(60.0, "a", 1005, 2000)
    assert (steps.done, steps.per_minute) == (1010, pytest.approx(10))


def test_the_rate_is_one_of_late() -> None:
    steps = Steps()
    for piece in "abc":
        steps.begin(piece, 1)
    steps.finish(0.0, "a")
    steps.finish(RECENT_SECONDS, "b")
    steps.finish(RECENT_SECONDS + 60, "c")
    assert steps.per_minute == pytest.approx(1)
