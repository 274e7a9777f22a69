"""Finals of a search, and that kills at any moment change nothing of it."""

from __future__ import annotations

import math

import pytest

from raydc.search.history import history_of
from raydc.spec.plan import Planned
from raydc.spec.result import FAILED, Row
from tests.search.lab import Lab, Make

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
    assert [p.origin.trial for p in finals if p.origin] == [number for number in best for _ in range(2)]
    assert not any(p.tested for p in finals)
    for number in best:
        had = [one.outcome(p)["val_acc"] for p in one.trained if p.origin and p.origin.trial == number]
        assert history["finals"][number]["value"] == pytest.approx(sum(had[:4]) / 4)
        assert history["finals"][number]["count"] == 4
    winner = max(best, key=lambda number: history["finals"][number]["value"])
    assert history["winner"] == winner != best[0]
    # No replicate that chose is read as a result.
    tested = [p for p in one.trained if p.tested]
    assert [p.evaluation.seed for p in tested] == [4, 5, 6]
    assert {p.origin.trial for p in tested if p.origin} == {winner}
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
            assert planned.origin is not None
            if planned.origin.trial != 4:
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
    finals = {p.origin.trial for p in one.trained if p.origin and p.evaluation.seed in (2, 3)}
    assert finals == set(history["finals"])
    assert len(finals) == 3
    assert not any(p.prunable for p in one.trained if p.evaluation.seed >= 2)
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
