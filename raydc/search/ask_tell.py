"""A search: points are asked of Optuna, evaluated like those of any other study, and told their values.

    ask  --point--> its replicates --> queue --> workers --> rows --> ledger --> hear --mean--> tell
     ^                  | known: told at once, without training                   |
     +---------------------------- another point is asked ------------------------+
    all told --> extra replicates of the finalists decide the winner --> the winner's fresh replicates,
                                                                         the only ones on test images

If a run is killed, its open points are still RUNNING in Optuna's storage. The next run continues them under
the same trial numbers and uses the results that the ledger already has.
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
    """A point that was asked and not yet told."""

    trial: Trial
    planned: Sequence[Planned]
    rows: dict[str, Row] = field(default_factory=dict)
    """The results of its evaluations so far, by id."""

    @property
    def lost(self) -> Row | None:
        """A replicate that did not finish; the point then has no value."""
        return next((row for row in self.rows.values() if row["status"] != FINISHED), None)


def _as_prunable(planned: Planned) -> Planned:
    """The same evaluation, marked as one that a scheduler may stop."""
    assert planned.origin is not None
    return replace(planned, origin=replace(planned.origin, prunable=True))


def measure(row: Row, metric: str) -> float:
    """A metric of one result; NaN if the row does not have it."""
    names = ("images_bytes", "labels_bytes") if metric == "stored_bytes" else (metric,)
    return sum(math.nan if row.get(name) is None else float(row[name]) for name in names)


class Search:
    """One search, from its first point to the replicates of the winner."""

    def __init__(
        self,
        study: StudySpec,
        points: Points,
        plan: Callable[[Sequence[Evaluation]], Plan],
        answer: Callable[[Planned], Row | None],
    ) -> None:
        """`plan` turns evaluations into a plan (`InputError` if the data do not allow them); `answer` returns
        the known result of an evaluation, or None."""
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
        self._open_finals: set[str] | None = None
        """Ids of the finalists' replicates that have no result yet; None until all points are told."""
        self._winner_asked = False

    def keep_busy(self, students: int) -> None:
        """Set the number of students to keep in training or waiting, which limits the open points."""
        # With a scheduler, the first replicate of a point is trained before the others start.
        together = 1 if self.spec.prunes else len(self.study.seeds)
        self._most_open = max(2, -(-students // together))

    # --- asking -------------------------------------------------------------------------------

    def ask(self) -> list[Planned]:
        """Evaluations to train next: of new points up to the limit of open ones, of the finalists, or of the
        winner."""
        fresh: list[Planned] = []
        while len(self._open) < self._most_open and (trial := self._next()) is not None:
            fresh += self._begin(trial)
        if not self._open and self._open_finals is None:
            finals = self._unknown(chain(*self._final_replicates().values()))
            self._open_finals = {planned.id for planned in finals}
            fresh += finals
        if self._open_finals is not None and not self._open_finals and not self._winner_asked:
            self._winner_asked = True
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
                planned[0] = _as_prunable(planned[0])
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
        """The next evaluations of a point; if none are left, the point is told."""
        fresh = []
        for planned in point.planned:
            if planned.id in point.rows:
                continue
            if self.spec.prunes and point.lost is not None:
                break
            if planned.id in self._waiting:
                # Another point has the same evaluation, or this one is already waiting for it.
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
        """Process results that are in the ledger; return the evaluations to run next."""
        fresh: list[Planned] = []
        for row in rows:
            for point in self._waiting.pop(row["evaluation_id"], []):
                point.rows[row["evaluation_id"]] = row
                fresh += self._proceed(point)
            if self._open_finals is not None:
                self._open_finals.discard(row["evaluation_id"])
            # After each row, so that the points do not depend on how many rows arrive at once.
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

    # --- progress and results -----------------------------------------------------------------

    def told(self) -> int:
        """Number of points that were told: complete, failed or stopped."""
        return len(self.points.trials(*TOLD))

    def to_come(self) -> int:
        """Upper bound of the evaluations still to be asked: of points, finals and the winner."""
        points = len(self._left) + max(0, self.spec.points - self.points.asked)
        return (
            points * len(self.study.seeds)
            + (self.spec.finals if self._open_finals is None else 0)
            + (0 if self._winner_asked else self.spec.winner_seeds)
        )

    def over(self) -> bool:
        """Whether nothing is left to run."""
        return (
            self._all_told()
            and not self._unknown(chain(*self._final_replicates().values()))
            and not self._unknown(self.winners())
        )

    @property
    def chosen_by(self) -> int:
        """Index of the metric that decides the winner: val_acc, or else the first."""
        return self.spec.metrics.index("val_acc") if "val_acc" in self.spec.metrics else 0

    def _rank(self, value: float) -> float:
        """Sort key of a value of the deciding metric: lower is better."""
        return -value if self.spec.modes[self.chosen_by] == "max" else value

    def finalists(self) -> list[FrozenTrial]:
        """The best trials by their told values, best first, each point once; with several objectives, trials
        of the Pareto front only."""
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
        """All replicates of each finalist, by trial number; empty while points are open, and if there are
        fewer than two finalists."""
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
        """Seeds that follow those of the points' replicates."""
        first += max(self.study.seeds) + 1
        return range(first, first + count)

    def finals(self) -> dict[int, list[float]]:
        """Values of the replicates of each finalist, by trial number; an empty list for a finalist with a
        failure. Empty until all replicates have a result."""
        metric = self.spec.metrics[self.chosen_by]
        found: dict[int, list[float]] = {}
        for number, planned in self._final_replicates().items():
            rows = [row for one in planned if (row := self._answer(one)) is not None]
            if len(rows) < len(planned):
                return {}
            values = [measure(row, metric) for row in rows if row["status"] == FINISHED]
            complete = len(values) == len(rows) and all(map(math.isfinite, values))
            found[number] = values if complete else []
        return found

    def winner(self) -> FrozenTrial | None:
        """The finalist with the best mean over all its replicates. If the finals are not complete, or all
        finalists failed in them, the finalist with the best told value; None if no point is complete."""
        finalists = self.finalists()
        if means := {number: fmean(values) for number, values in self.finals().items() if values}:
            finalists = [trial for trial in finalists if trial.number in means]
            finalists.sort(key=lambda trial: self._rank(means[trial.number]))
        return finalists[0] if finalists else None

    def winners(self) -> list[Planned]:
        """Fresh replicates of the winner, which are evaluated on the test images."""
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
                continue  # the trial was told as failed, with the reason
            found |= {one.id: one for one in planned if one.id not in found}
        found |= {one.id: one for one in chain(*self._final_replicates().values())}
        return [*found.values(), *self.winners()]

    def history(self) -> dict[str, Any]:
        """The search as JSON: every trial with its values, the Pareto front and the importances."""
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
