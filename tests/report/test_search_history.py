"""What a report says of a search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from raydc.report.html import write_report
from raydc.report.search_history import points, progress, sentences


def history(**changes: Any) -> dict[str, Any]:
    def trial(number: int, value: float | None, rate: float) -> dict[str, Any]:
        state = "failed" if value is None else "complete"
        values = None if value is None else [value]
        return {
            "number": number,
            "state": state,
            "values": values,
            "params": {"train.lr": rate},
            "reason": None,
        }

    return {
        "sampler": "tpe",
        "scheduler": "none",
        "metrics": ["val_acc"],
        "modes": ["max"],
        "trials": [trial(0, 0.5, 0.1), trial(1, None, 9.0), trial(2, 0.75, 0.02), trial(3, 0.625, 0.03)],
        "best": [2],
        "chosen_by": "val_acc",
        "finals": {},
        "winner": 2,
        "importances": {"train.lr": 1.0},
        "points": 6,
        "replicates": 3,
        "test_acc": {"value": 0.7, "low": 0.65, "high": 0.75, "count": 5},
        **changes,
    }


def test_the_winner_in_a_sentence() -> None:
    assert sentences(history()) == [
        "4 of 6 points told: 3 complete, 1 failed.",
        "The winner is trial 2, lr 0.02: val_acc 75.0 % (mean of 3 replicates), "
        "test_acc 70.0 % [65.0, 75.0] in 5 fresh replicates.",
    ]
    assert sentences(history(winner=None))[-1] == "No point is complete, so there is no winner."
    assert (
        sentences(history(test_acc=None, replicates=1))[-1]
        == "The winner is trial 2, lr 0.02: val_acc 75.0 %."
    )


FINALS = {
    "2": {"value": 0.7, "low": 0.6, "high": 0.8, "count": 8},
    "3": {"value": 0.725, "low": 0.65, "high": 0.8, "count": 8},
}


def test_the_finals_in_a_sentence_and_in_the_table() -> None:
    ended = history(finals=FINALS, winner=3)
    assert sentences(ended)[-1] == (
        "The winner is trial 3, lr 0.03: val_acc 62.5 % (mean of 3 replicates) before the finals, val_acc "
        "72.5 % [65.0, 80.0] over all 8 replicates after them, the best of 2 finalists, "
        "test_acc 70.0 % [65.0, 75.0] in 5 fresh replicates."
    )
    lost = history(finals={**FINALS, "0": None}, winner=3)
    assert "the best of 3 finalists, of which 1 failed, test_acc" in sentences(lost)[-1]
    assert points(lost)[1][2][2] == "failed"
    assert sentences(history(finals={"2": None, "3": None}))[-1] == (
        "All 2 finalists failed in the finals, so the point with the best told value wins."
    )
    head, body = points(ended)
    assert head == ("trial", "val_acc", "in the finals", "train.lr")
    assert [row[2] for row in body] == ["70.0 % [60.0, 80.0]", "72.5 % [65.0, 80.0]", "-"]


def test_that_more_than_one_point_was_tested_is_said() -> None:
    assert sentences(history(tested=[2]))[-1].startswith("The winner")
    assert sentences(history(tested=[0, 2]))[-1] == (
        "2 points were tested, because the search continued after a winner was tested; "
        "do not choose among them by test_acc."
    )


def test_what_an_older_version_wrote_has_no_finals() -> None:
    old = {key: value for key, value in history().items() if key not in ("finals", "chosen_by", "tested")}
    assert sentences(old) == sentences(history())
    assert points(old) == points(history())


def test_the_best_so_far_never_falls() -> None:
    [lines] = progress(history())
    best, told = lines.series
    assert best.x == told.x == (0.0, 2.0, 3.0)
    assert best.y == (0.5, 0.75, 0.75)
    [down] = progress(history(modes=["min"]))
    assert down.series[0].y == (0.5, 0.5, 0.5)
    assert progress(history(trials=[])) == []


def test_the_best_points_come_first() -> None:
    head, body = points(history())
    assert head == ("trial", "val_acc", "train.lr")
    assert body == (("2", "75.0 %", "0.02"), ("3", "62.5 %", "0.03"), ("0", "50.0 %", "0.1"))


def test_a_report_of_a_search_that_tested_nothing(tmp_path: Path) -> None:
    text = write_report([], tmp_path / "report.html", None, history=history()).read_text()
    assert '<section id="search">' in text
    assert "The winner is trial 2" in text
    assert "<h3>Importance of the keys</h3>" in text
