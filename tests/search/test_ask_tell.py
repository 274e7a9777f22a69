"""A search without Ray: every point is told once, whatever fails or comes twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raydc.errors import InputError
from raydc.search.points import FILE, PointPruner
from raydc.spec.plan import Planned
from raydc.spec.result import FAILED, FINISHED, STOPPED, Row
from raydc.spec.study import StudySpec
from tests.search.lab import Lab, Make, accuracy


def test_every_point_is_told_the_mean_of_its_replicates(lab: Make) -> None:
    one = lab()
    history = one.run()
    assert [trial["state"] for trial in history["trials"]] == ["complete"] * 12
    assert [trial["number"] for trial in history["trials"]] == list(range(12))
    assert one.search.over()
    for trial in history["trials"]:
        own = [p for p in one.trained if p.origin and p.origin.trial == trial["number"] and not p.tested]
        assert [p.evaluation.seed for p in own] == [0, 1]
        assert trial["values"] == [pytest.approx(sum(map(accuracy, own)) / 2)]
        assert ("labels.temperature" in trial["params"]) == (trial["params"]["labels.kind"] == "soft")
    best = max(history["trials"], key=lambda trial: trial["values"][0])
    assert history["winner"] == best["number"]
    assert history["importances"].keys() == {
        "labels.kind",
        "labels.temperature",
        "labels.teacher_epoch",
        "train.lr",
    }


def test_only_fresh_replicates_of_the_winner_are_tested(lab: Make) -> None:
    one = lab()
    history = one.run()
    tested = [p for p in one.trained if p.tested]
    assert [p.evaluation.seed for p in tested] == [2, 3, 4]
    assert {p.origin.trial for p in tested if p.origin} == {history["winner"]}
    assert {row["evaluation_id"] for row in one.ledger.rows.values() if row["test_acc"] is not None} == {
        p.id for p in tested
    }
    assert history["test_acc"]["count"] == 3
    # What was not tested is no result for a grid of the same points.
    assert one.ledger.finished() == {p.id for p in tested}


def test_failures_and_nan_are_told_as_failed_and_the_search_goes_on(lab: Make) -> None:
    class Unlucky(Lab):
        def outcome(self, planned: Planned) -> Row:
            assert planned.origin is not None
            if planned.origin.trial == 3 and planned.evaluation.seed == 1:
                return {
                    "status": FAILED,
                    "error": "EvaluationError: the loss is nan at step 2; lower train.lr",
                }
            if planned.origin.trial == 4:
                return {"status": FINISHED, "val_acc": None}
            return super().outcome(planned)

    history = lab(kind=Unlucky).run()
    states = [trial["state"] for trial in history["trials"]]
    assert states == ["failed" if number in (3, 4) else "complete" for number in range(12)]
    assert history["trials"][3]["reason"] == "EvaluationError: the loss is nan at step 2; lower train.lr"
    assert history["trials"][4]["reason"] == "val_acc is nan"
    # What failed has failed: a second run trains nothing.
    again = lab(kind=Unlucky)
    assert again.run() == history
    assert again.trained == []


def test_a_repeated_point_is_told_without_training(lab: Make) -> None:
    one = lab("search.optuna.sampler=nsga2", space="\n      labels.kind: {categorical: [hard, soft]}\n")
    history = one.run()
    assert len(history["trials"]) == 12
    assert {trial["state"] for trial in history["trials"]} == {"complete"}
    assert len(one.trained) == 2 * 2 + 3
    rows = one.ledger.rows.values()
    assert all(history["trials"][row["trial"]]["state"] == "complete" for row in rows)


def test_several_objectives_have_a_front(lab: Make) -> None:
    class Sized(Lab):
        def outcome(self, planned: Planned) -> Row:
            return {
                **super().outcome(planned),
                "images_bytes": round(1e5 * planned.evaluation.point["train.lr"]),
            }

    settings = ("search.optuna.metric=[val_acc, stored_bytes]", "search.optuna.mode=[max, min]")
    history = lab(*settings, kind=Sized).run()
    trials = history["trials"]
    assert all(len(trial["values"]) == 2 for trial in trials)
    beaten = {
        one["number"]
        for one in trials
        for other in trials
        if other["values"][0] > one["values"][0] and other["values"][1] < one["values"][1]
    }
    assert set(history["best"]).isdisjoint(beaten)
    assert len(history["best"]) >= 2
    assert history["winner"] == max(history["best"], key=lambda number: trials[number]["values"][0])


def test_a_point_that_the_data_refuse_has_failed(lab: Make, small: Callable[..., StudySpec]) -> None:
    """Ends of a space are checked before; a combination inside may still be impossible."""
    one = lab()
    plan = one.search._plan

    def refuse(evaluations: Any) -> Any:
        if evaluations[0].point["labels.kind"] == "soft":
            raise InputError("labels.kind is soft, and that is that")
        return plan(evaluations)

    one.search._plan = refuse
    trials = one.run()["trials"]
    assert {(t["params"]["labels.kind"], t["state"]) for t in trials} == {
        ("hard", "complete"),
        ("soft", "failed"),
    }
    assert {t["reason"] for t in trials} == {None, "labels.kind is soft, and that is that"}


def test_more_trials_go_on_with_the_search_and_another_search_is_refused(lab: Make) -> None:
    first = lab("search.optuna.trials=4").run()["trials"]
    more = lab("search.optuna.trials=7")
    assert more.run()["trials"][:4] == first
    assert more.search.told() == 7
    for change in ("base.train.steps=6", "search.optuna.metric=train_acc", "seeds=1"):
        with pytest.raises(InputError, match=r"holds a search of another space.*give another --out"):
            lab(change)


@pytest.mark.parametrize("scheduler", ["asha", "hyperband", "median"])
def test_a_scheduler_looks_at_the_first_replicate_and_stops_the_point(
    lab: Make, tmp_path: Path, scheduler: str
) -> None:
    class Judged(Lab):
        referee: PointPruner

        def outcome(self, planned: Planned) -> Row:
            assert planned.origin is not None
            assert planned.prunable == (planned.evaluation.seed == 0)
            for rung in (1, 3, 9) if planned.prunable else ():
                if not self.referee.should_continue(planned.origin.trial, rung, accuracy(planned)):
                    return {"status": STOPPED, "val_acc": None, "error": f"StoppedError: at {rung}"}
            return super().outcome(planned)

    settings = (f"search.optuna.scheduler={scheduler}", "search.optuna.trials=30")
    one = lab(*settings, kind=Judged)
    spec = one.search.spec
    Judged.referee = PointPruner(tmp_path / "out" / FILE, "small", spec)
    history = one.run()
    stopped = {t["number"] for t in history["trials"] if t["state"] == "stopped"}
    complete = {t["number"] for t in history["trials"] if t["state"] == "complete"}
    assert stopped
    assert len(stopped | complete) == 30
    seeds = {
        n: [p.evaluation.seed for p in one.trained if p.origin and p.origin.trial == n] for n in range(30)
    }
    assert all(seeds[number] == [0] for number in stopped)
    assert all(seeds[number][:2] == [0, 1] for number in complete)
    assert history["winner"] in complete
    # Stopped students are no results for anybody.
    assert not {p.id for p in one.trained if p.origin and p.origin.trial in stopped} & one.ledger.finished()
