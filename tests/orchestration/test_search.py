"""A search without Ray: every point is told once, whatever is killed, fails or comes twice."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raydc.data.dataset import Dataset
from raydc.errors import InputError
from raydc.orchestration.points import FILE, Points, Referee
from raydc.orchestration.search import Search
from raydc.result import FAILED, FINISHED, STOPPED, Row, make_row
from raydc.searching import Answers, history_of, searched
from raydc.spec.facts import bind
from raydc.spec.plan import Planned, make_plan
from raydc.spec.study import Study
from raydc.tracking.ledger import Ledger

SPACE = """
      labels.kind: {categorical: [hard, soft]}
      labels.temperature: {loguniform: [0.5, 20], when: {labels.kind: soft}}
      labels.teacher_epoch: {int: [1, 2], when: {labels.kind: soft}}
      train.lr: {loguniform: [0.001, 0.1]}
"""
SEARCH = """
seeds: 2
search:
  optuna:
    trials: 12
    winner_seeds: 3
    space:"""


def accuracy(planned: Planned) -> float:
    """An invented result: the higher the rate and the temperature, the better."""
    point = planned.evaluation.point
    return min(
        1.0,
        5 * point["train.lr"] + 0.01 * point.get("labels.temperature", 0) + 0.01 * planned.evaluation.seed,
    )


class Lab:
    """A worker that trains nothing, with the ledger of one folder."""

    def __init__(self, folder: Path, study: Study, digits: Dataset, students: int = 2) -> None:
        self.ledger = Ledger(folder)
        self.trained: list[Planned] = []
        self.waiting: list[Planned] = []
        assert study.search is not None
        points = Points(folder / FILE, study.name, study.search, searched(study, digits.id))
        self.search = Search(
            study,
            points,
            lambda evaluations: make_plan(bind(evaluations, digits.facts, "small.yaml"), digits.id),
            Answers(self.ledger, {}, study.name),
        )
        self.search.keep_busy(students)

    def outcome(self, planned: Planned) -> Row:
        return {"status": FINISHED, "val_acc": accuracy(planned), "images_bytes": 10, "labels_bytes": 5}

    def train(self) -> None:
        planned = self.waiting.pop(0)
        self.trained.append(planned)
        row = make_row(
            planned,
            study="small",
            dataset_id="d",
            status=FINISHED,
            started_at=0.0,
            finished_at=1.0,
            attempts=1,
        )
        row |= self.outcome(planned)
        if planned.tested:
            row |= {"test_acc": row["val_acc"] - 0.01}
        self.ledger.append([row])
        self.waiting += self.search.hear([row])

    def run(self, most: float = math.inf) -> dict[str, Any]:
        """Train so many evaluations, or all."""
        self.waiting += self.search.ask()
        while self.waiting and len(self.trained) < most:
            self.train()
        return history_of(self.search, self.ledger)


Make = Callable[..., Lab]


@pytest.fixture
def lab(small: Callable[..., Study], digits: Dataset, tmp_path: Path) -> Make:
    def make(
        *settings: str, folder: str = "out", space: str = SPACE, kind: type[Lab] = Lab, **options: Any
    ) -> Lab:
        (tmp_path / folder).mkdir(exist_ok=True)
        study = small(*settings, extra=SEARCH + space)
        return kind(tmp_path / folder, study, digits, **options)

    return make


def test_every_point_is_told_the_mean_of_its_replicates(lab: Make) -> None:
    one = lab()
    history = one.run()
    assert [trial["state"] for trial in history["trials"]] == ["complete"] * 12
    assert [trial["number"] for trial in history["trials"]] == list(range(12))
    assert one.search.over()
    for trial in history["trials"]:
        own = [p for p in one.trained if p.asked and p.asked.trial == trial["number"] and not p.tested]
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
    assert {p.asked.trial for p in tested if p.asked} == {history["winner"]}
    assert {row["evaluation_id"] for row in one.ledger.rows.values() if row["test_acc"] is not None} == {
        p.id for p in tested
    }
    assert history["test_acc"]["count"] == 3
    # What was not tested is no result for a grid of the same points.
    assert one.ledger.finished() == {p.id for p in tested}


FINALS = ("search.optuna.finalists=3", "search.optuna.finalist_seeds=2")


class Late(Lab):
    """Who is best in the first two replicates is the worst of all in further ones."""

    def outcome(self, planned: Planned) -> Row:
        row = super().outcome(planned)
        further = planned.evaluation.seed >= 2
        return {**row, "val_acc": 1 - 2 * row["val_acc"]} if further else row


def test_further_replicates_choose_among_the_finalists(lab: Make) -> None:
    one = lab(*FINALS, kind=Late)
    history = one.run()
    told = {trial["number"]: trial["values"][0] for trial in history["trials"]}
    best = sorted(told, key=lambda number: -told[number])[:3]
    finals = [p for p in one.trained if p.evaluation.seed in (2, 3)]
    assert [p.asked.trial for p in finals if p.asked] == [number for number in best for _ in range(2)]
    assert not any(p.tested for p in finals)
    for number in best:
        had = [one.outcome(p)["val_acc"] for p in one.trained if p.asked and p.asked.trial == number]
        assert history["finals"][number]["value"] == pytest.approx(sum(had[:4]) / 4)
        assert history["finals"][number]["count"] == 4
    winner = max(best, key=lambda number: history["finals"][number]["value"])
    assert history["winner"] == winner != best[0]
    # No replicate that chose is read as a result.
    tested = [p for p in one.trained if p.tested]
    assert [p.evaluation.seed for p in tested] == [4, 5, 6]
    assert {p.asked.trial for p in tested if p.asked} == {winner}
    assert one.search.over()
    assert one.search.to_come() == 0


def test_what_is_to_come_counts_the_finals(lab: Make) -> None:
    one = lab(*FINALS)
    assert one.search.to_come() == 12 * 2 + 3 * 2 + 3
    one.run(most=24)
    assert one.search.to_come() == 3
    assert not one.search.over()
    # Until they are over, the best as it was told stands.
    history = history_of(one.search, one.ledger)
    assert history["finals"] == {}
    assert history["winner"] == max(history["trials"], key=lambda trial: trial["values"][0])["number"]


def test_a_finalist_with_a_failure_is_out(lab: Make) -> None:
    class Unlucky(Lab):
        def outcome(self, planned: Planned) -> Row:
            first = planned.evaluation.seed == 2 and not any(
                p.evaluation.seed == 2 for p in self.trained[:-1]
            )
            return {"status": FAILED, "error": "EvaluationError: lost"} if first else super().outcome(planned)

    one = lab(*FINALS, kind=Unlucky)
    history = one.run()
    told = {trial["number"]: trial["values"][0] for trial in history["trials"]}
    best = sorted(told, key=lambda number: -told[number])[:3]
    assert [history["finals"][number] is None for number in best] == [True, False, False]
    assert history["winner"] == best[1]


def test_where_all_finalists_fail_the_best_wins_as_it_was_told(lab: Make) -> None:
    class Unlucky(Lab):
        def outcome(self, planned: Planned) -> Row:
            if planned.evaluation.seed in (2, 3):
                return {"status": FAILED, "error": "EvaluationError: lost"}
            return super().outcome(planned)

    history = lab(*FINALS, kind=Unlucky).run()
    assert list(history["finals"].values()) == [None] * 3
    assert history["winner"] == max(history["trials"], key=lambda trial: trial["values"][0])["number"]


def test_a_point_is_one_finalist_however_often_it_was_asked(lab: Make) -> None:
    space = "\n      labels.kind: {categorical: [hard, soft]}\n      train.lr: {categorical: [0.1, 0.01]}\n"
    one = lab("search.optuna.sampler=nsga2", "search.optuna.trials=30", *FINALS, space=space)
    history = one.run()
    points = [history["trials"][number]["params"] for number in history["finals"]]
    assert len(points) == len({str(sorted(point.items())) for point in points}) == 3
    assert len(one.trained) == len({p.id for p in one.trained}) == 4 * 2 + 3 * 2 + 3


def test_one_finalist_has_nobody_to_beat(lab: Make) -> None:
    class Unlucky(Lab):
        def outcome(self, planned: Planned) -> Row:
            assert planned.asked is not None
            if planned.asked.trial != 4:
                return {"status": FAILED, "error": "EvaluationError: lost"}
            return super().outcome(planned)

    one = lab(*FINALS, kind=Unlucky)
    history = one.run()
    assert (history["winner"], history["finals"]) == (4, {})
    assert [p.evaluation.seed for p in one.trained if p.tested] == [4, 5, 6]
    assert one.search.over()


@pytest.mark.parametrize(
    "settings",
    [
        ("search.optuna.scheduler=asha",),
        ("search.optuna.metric=[val_acc, stored_bytes]", "search.optuna.mode=[max, min]"),
    ],
)
def test_finals_of_a_scheduler_and_of_several_objectives(lab: Make, settings: tuple[str, ...]) -> None:
    class Sized(Lab):
        def outcome(self, planned: Planned) -> Row:
            size = round(1e5 * planned.evaluation.point["train.lr"])
            return {**super().outcome(planned), "images_bytes": size}

    one = lab(*FINALS, *settings, kind=Sized)
    history = one.run()
    finals = {p.asked.trial for p in one.trained if p.asked and p.evaluation.seed in (2, 3)}
    assert finals == set(history["finals"])
    assert len(finals) == 3
    assert not any(p.judged for p in one.trained if p.evaluation.seed >= 2)
    assert history["chosen_by"] == "val_acc"
    assert len({p.id for p in one.trained}) == len(one.trained)
    if len(history["metrics"]) > 1:
        assert finals <= set(history["best"])


def test_more_trials_have_finals_of_their_own_and_say_that_two_were_tested(lab: Make) -> None:
    first = lab(*FINALS, "search.optuna.trials=4")
    before = first.run()
    more = lab(*FINALS, "search.optuna.trials=30")
    more.run(most=10)
    # While points are open there are no finals, whatever the ledger knows.
    assert history_of(more.search, more.ledger)["finals"] == {}
    again = lab(*FINALS, "search.optuna.trials=30")
    history = again.run()
    assert len(history["finals"]) == 3
    assert history["tested"] == sorted({before["winner"], history["winner"]})
    trained = [p.id for one in (first, more, again) for p in one.trained]
    assert len(trained) == len(set(trained))


@pytest.mark.parametrize("settings", [(), FINALS])
@pytest.mark.parametrize("sampler", ["tpe", "gp", "cmaes", "nsga2", "random"])
def test_a_killed_search_goes_on_as_if_nothing_had_been(
    lab: Make, sampler: str, settings: tuple[str, ...]
) -> None:
    settings = (f"search.optuna.sampler={sampler}", *settings)
    whole = lab(*settings, folder="whole", kind=Late)
    expected = whole.run()
    trained: list[str] = []
    for most in (0, 1, 6, 2, 1, 15, 2, math.inf):
        part = lab(*settings, folder="parts", kind=Late)
        history = part.run(most)
        trained += [p.id for p in part.trained]
    assert history == expected
    assert trained == [p.id for p in whole.trained]
    assert len(set(trained)) == len(trained)


def test_another_seed_asks_for_other_points(lab: Make) -> None:
    asked = [
        lab(f"search.optuna.seed={seed}", folder=str(seed)).run()["trials"][0]["params"] for seed in (0, 0, 1)
    ]
    assert asked[0] == asked[1] != asked[2]


def test_failures_and_nan_are_told_as_failed_and_the_search_goes_on(lab: Make) -> None:
    class Unlucky(Lab):
        def outcome(self, planned: Planned) -> Row:
            assert planned.asked is not None
            if planned.asked.trial == 3 and planned.evaluation.seed == 1:
                return {
                    "status": FAILED,
                    "error": "EvaluationError: the loss is nan at step 2; lower train.lr",
                }
            if planned.asked.trial == 4:
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


def test_enqueued_points_come_first(lab: Make) -> None:
    first = "{labels.kind: soft, labels.temperature: 4, labels.teacher_epoch: 2, train.lr: 0.02}"
    points = f"[{first}, {{train.lr: 0.01}}]"
    trials = lab(f"search.optuna.enqueue={points}").run()["trials"]
    assert trials[0]["params"] == {
        "labels.kind": "soft", "labels.temperature": 4.0, "labels.teacher_epoch": 2, "train.lr": 0.02
    }  # fmt: skip
    assert trials[1]["params"]["train.lr"] == 0.01
    assert len(trials) == 12


def test_a_grid_asks_for_every_combination_once(lab: Make) -> None:
    space = """
      labels.kind: {categorical: [hard, soft]}
      labels.teacher_epoch: {int: [1, 2], when: {labels.kind: soft}}
      train.augment: {categorical: [none, [flip, crop]]}
"""
    one = lab("search.optuna.sampler=grid", "search.optuna.trials=50", space=space)
    one.run(most=3)
    again = lab("search.optuna.sampler=grid", "search.optuna.trials=50", space=space)
    trials = again.run()["trials"]
    asked = [tuple(sorted(trial["params"].items())) for trial in trials]
    assert len(asked) == len(set(asked)) == 6
    assert {trial["params"]["train.augment"] for trial in trials} == {"none", "crop+flip"}
    assert len(one.trained) + len(again.trained) == 6 * 2 + 3


@pytest.mark.parametrize("sampler", ["tpe", "gp", "random"])
def test_a_finite_space_is_asked_without_repeating(lab: Make, sampler: str) -> None:
    space = """
      labels.kind: {categorical: [hard, soft]}
      labels.temperature: {categorical: [16, 1, 4], when: {labels.kind: soft}}
      train.lr: {categorical: [0.1, 0.001, 0.01]}
"""
    few = lab(f"search.optuna.sampler={sampler}", space=space).run(most=5)
    assert len(few["trials"]) < 12
    trials = lab(f"search.optuna.sampler={sampler}", "search.optuna.trials=50", space=space).run()["trials"]
    asked = [tuple(sorted(trial["params"].items())) for trial in trials]
    assert len(asked) == len(set(asked)) == 3 + 3 * 3


def test_listed_numbers_have_an_order(lab: Make) -> None:
    """A sampler that knows the order finds the best of a smooth valley sooner than chance."""
    space = "\n      train.lr: {categorical: [" + ", ".join(f"{n / 1000:g}" for n in range(1, 101)) + "]}\n"

    class Valley(Lab):
        def outcome(self, planned: Planned) -> Row:
            return {"status": FINISHED, "val_acc": 1 - abs(planned.evaluation.point["train.lr"] - 0.04)}

    settings = ("search.optuna.trials=30", "seeds=1", "search.optuna.winner_seeds=0")
    best = {
        sampler: [
            max(trial["values"][0] for trial in lab(
                f"search.optuna.sampler={sampler}", f"search.optuna.seed={seed}", *settings,
                folder=f"{sampler}-{seed}", space=space, kind=Valley,
            ).run()["trials"])
            for seed in range(5)
        ]
        for sampler in ("tpe", "gp", "random")
    }  # fmt: skip
    assert min(best["tpe"]) >= 0.998
    assert min(best["gp"]) >= 0.999
    assert sum(best["random"]) < sum(best["tpe"])


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


def test_a_point_that_the_data_refuse_has_failed(lab: Make, small: Callable[..., Study]) -> None:
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
        referee: Referee

        def outcome(self, planned: Planned) -> Row:
            assert planned.asked is not None
            assert planned.judged == (planned.evaluation.seed == 0)
            for rung in (1, 3, 9) if planned.judged else ():
                if not self.referee.goes_on(planned.asked.trial, rung, accuracy(planned)):
                    return {"status": STOPPED, "val_acc": None, "error": f"StoppedError: at {rung}"}
            return super().outcome(planned)

    settings = (f"search.optuna.scheduler={scheduler}", "search.optuna.trials=30")
    one = lab(*settings, kind=Judged)
    spec = one.search.spec
    Judged.referee = Referee(tmp_path / "out" / FILE, "small", spec)
    history = one.run()
    stopped = {t["number"] for t in history["trials"] if t["state"] == "stopped"}
    complete = {t["number"] for t in history["trials"] if t["state"] == "complete"}
    assert stopped
    assert len(stopped | complete) == 30
    seeds = {n: [p.evaluation.seed for p in one.trained if p.asked and p.asked.trial == n] for n in range(30)}
    assert all(seeds[number] == [0] for number in stopped)
    assert all(seeds[number][:2] == [0, 1] for number in complete)
    assert history["winner"] in complete
    # Stopped students are no results for anybody.
    assert not {p.id for p in one.trained if p.asked and p.asked.trial in stopped} & one.ledger.finished()
