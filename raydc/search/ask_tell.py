"""A search: points are asked of Optuna, evaluated as every other study's, and told.

    ask  --point--> its replicates --> queue --> workers --> rows --> ledger --> hear --mean--> tell
     ^                  | known: told at once, without training                   |
     +---------------------------- another point is asked ------------------------+
    all told --> further replicates of the finalists, which choose --> the winner's fresh replicates,
                                                                       which alone see test images

What is open when a run is killed is running in Optuna's storage: the next run asks it again under its
number, and takes what the ledger has of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from statistics import fmean
from typing import Any

from optuna.trial import FrozenTrial, Trial, TrialState

from raydc.errors import InputError
from raydc.search.points import REASON, TOLD, Points
from raydc.spec.evaluation import Evaluation
from raydc.spec.keys import Value
from raydc.spec.plan import Plan, Planned, SearchOrigin
from raydc.spec.point import flat_value
from raydc.spec.result import FAILED, FINISHED, STOPPED, Row
from raydc.spec.search import SearchSpec
from raydc.spec.study import StudySpec

STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.FAIL: FAILED,
    TrialState.PRUNED: STOPPED,
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


@dataclass(eq=False)
class _Open:
    """A point that was asked and is not told."""

    trial: Trial
    planned: Sequence[Planned]
    rows: dict[str, Row] = field(default_factory=dict)
    """What is known of its evaluations, by id."""

    @property
    def lost(self) -> Row | None:
        """A replicate that did not finish, with which the point cannot be told a value."""
        return next((row for row in self.rows.values() if row["status"] != FINISHED), None)


def _judged(planned: Planned) -> Planned:
    """The same, which a scheduler may stop."""
    assert planned.origin is not None
    return replace(planned, origin=replace(planned.origin, prunable=True))


def measure(row: Row, metric: str) -> float:
    """A metric of one result; NaN where the row has none."""
    names = ("images_bytes", "labels_bytes") if metric == "stored_bytes" else (metric,)
    return sum(math.nan if row.get(name) is None else float(row[name]) for name in names)


class Search:
    """One search, from its first point to the winner's replicates."""

    def __init__(
        self,
        study: StudySpec,
        points: Points,
        plan: Callable[[Sequence[Evaluation]], Plan],
        answer: Callable[[Planned], Row | None],
    ) -> None:
        """`plan` names what evaluations need (`InputError` if the data do not allow them); `answer` is
        what is known of one without training."""
        assert study.search is not None
        self.study = study
        self.spec: SearchSpec = study.search
        self.points = points
        self._plan = plan
        self._answer = answer
        self._most_open = 1
        self._left = points.left_running()
        self._open: dict[int, _Open] = {}
        self._waiting: dict[str, list[_Open]] = {}
        self._deciding: set[str] | None = None
        """Ids of the finalists' replicates that are in training; None until all points are told."""
        self._crowned = False

    def keep_busy(self, students: int) -> None:
        """So many students are wanted in training or waiting; the points that are open at a time follow."""
        # A scheduler looks at the first replicate of a point before the others begin.
        together = 1 if self.spec.prunes else len(self.study.seeds)
        self._most_open = max(2, -(-students // together))

    # --- asking -------------------------------------------------------------------------------

    def ask(self) -> list[Planned]:
        """Evaluations that nobody has run: of as many points as may be open, of the finalists, or of the
        winner."""
        fresh: list[Planned] = []
        while len(self._open) < self._most_open and (trial := self._next()) is not None:
            fresh += self._begin(trial)
        if not self._open and self._deciding is None:
            finals = self._unknown(chain(*self._final_replicates().values()))
            self._deciding = {planned.id for planned in finals}
            fresh += finals
        if self._deciding is not None and not self._deciding and not self._crowned:
            self._crowned = True
            fresh += self._unknown(self.winners())
        return fresh

    def _unknown(self, planned: Iterable[Planned]) -> list[Planned]:
        return [one for one in planned if self._answer(one) is None]

    def _next(self) -> Trial | None:
        if self._left:
            return self._left.pop(0)
        return self.points.ask() if self.points.asked < self.spec.points else None

    def _begin(self, trial: Trial) -> list[Planned]:
        try:
            planned = self._planned(trial.number, self.points.values(trial), self.study.seeds)
            if self.spec.prunes:
                planned[0] = _judged(planned[0])
        except InputError as error:
            self.points.tell_failed(trial, str(error))
            return []
        self._open[trial.number] = _Open(trial, planned)
        return self._proceed(self._open[trial.number])

    def _planned(
        self, trial: int, values: Mapping[str, Value], seeds: Iterable[int], tested: bool = False
    ) -> list[Planned]:
        plan = self._plan(self.study.at(values, seeds))
        return [
            replace(planned, origin=SearchOrigin(trial, plan.sets[planned.compressed_set], tested=tested))
            for planned in plan.evaluations
        ]

    def _proceed(self, point: _Open) -> list[Planned]:
        """What is to be run next of a point; it is told when there is nothing left."""
        fresh = []
        for planned in point.planned:
            if planned.id in point.rows:
                continue
            if self.spec.prunes and point.lost is not None:
                break
            if planned.id in self._waiting:
                # Another point has the same evaluation, or this one waits for it already.
                if point not in self._waiting[planned.id]:
                    self._waiting[planned.id].append(point)
            elif (row := self._answer(planned)) is not None:
                point.rows[planned.id] = row
                continue
            else:
                self._waiting[planned.id] = [point]
                fresh.append(planned)
            if planned.prunable:
                break
        if not any(point in points for points in self._waiting.values()):
            self._tell(point)
        return fresh

    # --- telling ------------------------------------------------------------------------------

    def hear(self, rows: Sequence[Row]) -> list[Planned]:
        """Take in results that the ledger has; returns what is to be evaluated next."""
        fresh: list[Planned] = []
        for row in rows:
            for point in self._waiting.pop(row["evaluation_id"], []):
                point.rows[row["evaluation_id"]] = row
                fresh += self._proceed(point)
            if self._deciding is not None:
                self._deciding.discard(row["evaluation_id"])
            # After each row, so that what is asked does not depend on how many rows came together.
            fresh += self.ask()
        return fresh

    def _tell(self, point: _Open) -> None:
        del self._open[point.trial.number]
        lost = point.lost
        if lost is not None and lost["status"] == STOPPED:
            self.points.tell_stopped(point.trial)
            return
        if lost is not None:
            self.points.tell_failed(point.trial, str(lost["error"]))
            return
        means = [
            sum(measure(row, metric) for row in point.rows.values()) / len(point.rows)
            for metric in self.spec.metrics
        ]
        for metric, mean in zip(self.spec.metrics, means, strict=True):
            if not math.isfinite(mean):
                self.points.tell_failed(point.trial, f"{metric} is {mean}")
                return
        self.points.tell(point.trial, means)

    # --- what came of it ----------------------------------------------------------------------

    def told(self) -> int:
        """Points that are over."""
        return len(self.points.trials(*TOLD))

    def to_come(self) -> int:
        """Evaluations of points that are still to be asked, of finals and of the winner, at most."""
        points = len(self._left) + max(0, self.spec.points - self.points.asked)
        return (
            points * len(self.study.seeds)
            + (self.spec.finals if self._deciding is None else 0)
            + (0 if self._crowned else self.spec.winner_seeds)
        )

    def over(self) -> bool:
        """Whether there is nothing left to run."""
        return (
            self._all_told()
            and not self._unknown(chain(*self._final_replicates().values()))
            and not self._unknown(self.winners())
        )

    @property
    def chosen_by(self) -> int:
        """Place of the metric that chooses the winner: val_acc, or else the first."""
        return self.spec.metrics.index("val_acc") if "val_acc" in self.spec.metrics else 0

    def _rank(self, value: float) -> float:
        """The lower, the better."""
        return -value if self.spec.modes[self.chosen_by] == "max" else value

    def finalists(self) -> list[FrozenTrial]:
        """The best trials by what was told, the best first, each point once; of several objectives, of the
        Pareto front."""
        several = len(self.spec.metrics) > 1
        found = self.points.best() if several else self.points.trials(TrialState.COMPLETE)
        distinct: dict[tuple[str, ...], FrozenTrial] = {}
        for trial in sorted(found, key=lambda trial: self._rank(trial.values[self.chosen_by])):
            if len(distinct) == self.spec.finalists:
                break
            replicates = self._planned(trial.number, self.points.values_told(trial), self.study.seeds)
            distinct.setdefault(tuple(planned.id for planned in replicates), trial)
        return list(distinct.values())

    def _all_told(self) -> bool:
        return self.points.asked >= self.spec.points and not self.points.trials(TrialState.RUNNING)

    def _final_replicates(self) -> dict[int, list[Planned]]:
        """All replicates of each finalist, by its number; empty while points are open, and where there are
        not several."""
        if not self.spec.further or not self._all_told():
            return {}
        finalists = self.finalists()
        if len(finalists) < 2:
            return {}
        seeds = [*self.study.seeds, *self._later(0, self.spec.further)]
        return {
            trial.number: self._planned(trial.number, self.points.values_told(trial), seeds)
            for trial in finalists
        }

    def _later(self, first: int, count: int) -> range:
        """Replicates after those of every point."""
        first += max(self.study.seeds) + 1
        return range(first, first + count)

    def finals(self) -> dict[int, list[float]]:
        """What the replicates of each finalist had, by its number; nothing of one with a failure. Empty until
        all are over."""
        metric = self.spec.metrics[self.chosen_by]
        found: dict[int, list[float]] = {}
        for number, planned in self._final_replicates().items():
            rows = [row for one in planned if (row := self._answer(one)) is not None]
            if len(rows) < len(planned):
                return {}
            had = [measure(row, metric) for row in rows if row["status"] == FINISHED]
            whole = len(had) == len(rows) and all(map(math.isfinite, had))
            found[number] = had if whole else []
        return found

    def winner(self) -> FrozenTrial | None:
        """The finalist with the best mean of all its replicates, or the best as it was told where finals
        are not over or nobody came through them. None where no point is complete."""
        finalists = self.finalists()
        if through := {number: fmean(had) for number, had in self.finals().items() if had}:
            finalists = [trial for trial in finalists if trial.number in through]
            finalists.sort(key=lambda trial: self._rank(through[trial.number]))
        return finalists[0] if finalists else None

    def winners(self) -> list[Planned]:
        """Fresh replicates of the winner, which see the test images."""
        trial = self.winner()
        if trial is None:
            return []
        seeds = self._later(self.spec.further, self.spec.winner_seeds)
        return self._planned(trial.number, self.points.values_told(trial), seeds, tested=True)

    def evaluations(self) -> list[Planned]:
        """Every evaluation of the points asked so far, each once, of the finalists and of the winner."""
        found: dict[str, Planned] = {}
        for trial in self.points.trials(*TOLD, TrialState.RUNNING):
            try:
                planned = self._planned(trial.number, self.points.values_told(trial), self.study.seeds)
            except InputError:
                continue  # it was told as failed, with the reason
            found |= {one.id: one for one in planned if one.id not in found}
        found |= {one.id: one for one in chain(*self._final_replicates().values())}
        return [*found.values(), *self.winners()]

    def history(self) -> dict[str, Any]:
        """The search as JSON: every trial with its values, the front, and what mattered."""
        winner = self.winner()
        return {
            "sampler": self.spec.sampler,
            "scheduler": self.spec.scheduler,
            "metrics": list(self.spec.metrics),
            "modes": list(self.spec.modes),
            "trials": [
                {
                    "number": trial.number,
                    "state": STATES[trial.state],
                    "values": trial.values if trial.state == TrialState.COMPLETE else None,
                    "params": {k: flat_value(v) for k, v in self.points.values_told(trial).items()},
                    "reason": trial.user_attrs.get(REASON),
                }
                for trial in self.points.trials()
            ],
            "best": [trial.number for trial in self.points.best()],
            "chosen_by": self.spec.metrics[self.chosen_by],
            "winner": None if winner is None else winner.number,
            "importances": dict(self.points.importances()),
        }
