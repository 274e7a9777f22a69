"""Points of a search as Optuna trials; Optuna's storage in the study's folder is the source of truth.

`DIR/search.db` is a SQLite database: it survives a kill, and optuna-dashboard can read it. Each ask uses a
new sampler, seeded by the search's seed and the number of trials, so the points depend on the told values
and not on how often the search was interrupted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import optuna
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import RandomSampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from raydc.errors import InputError
from raydc.files.full_disk import writing_folder
from raydc.search.cma_state import check_states
from raydc.search.proposing import point_of, proposal, quiet, sampler_of, suggested, value_of
from raydc.spec.keys import Value
from raydc.spec.point import flat_value
from raydc.spec.search import NOTHING_TWICE, RUNGS, WHOLE, Dimension, SearchSpec

FILE = "search.db"
BUSY_SECONDS = 120.0
"""Seconds that a writer of the storage waits for a lock."""
SEARCHED = "raydc.searched"
"""Attribute of the Optuna study: digest of everything that its values depend on."""
GRID_POINT = "raydc.grid_point"
"""Attribute of a trial: index of its point in the grid."""
REASON = "raydc.reason"
"""Attribute of a trial: why it failed."""
LEAST_FOR_IMPORTANCE = 10
"""Smallest number of complete trials for which importances are computed."""
TOLD = (TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED)
"""States of trials that have ended."""


def open_storage(path: Path) -> RDBStorage:
    """The storage in the file at `path`."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return RDBStorage(
        f"sqlite:///{path.absolute()}", engine_kwargs={"connect_args": {"timeout": BUSY_SECONDS}}
    )


def pruner_of(search: SearchSpec) -> BasePruner:
    """Optuna's pruner for a scheduler; a complete training has the resource `WHOLE`."""
    eta = RUNGS[1] // RUNGS[0]
    if search.scheduler == "asha":
        return SuccessiveHalvingPruner(min_resource=RUNGS[0], reduction_factor=eta)
    if search.scheduler == "hyperband":
        return HyperbandPruner(min_resource=RUNGS[0], max_resource=WHOLE, reduction_factor=eta)
    return MedianPruner() if search.scheduler == "median" else NopPruner()


def _stored(dimension: Dimension, value: Value) -> Value:
    """A value as Optuna stores it."""
    return int(value) if dimension.whole else flat_value(value)


class Points:
    """The trials of one search."""

    def __init__(self, path: Path, name: str, search: SearchSpec, searched: str) -> None:
        """Open or create the search `name` in the file at `path`; `searched` is its digest (`searched`).

        Raises `InputError` if the file holds another search.
        """
        self.path = path
        self.search = search
        try:
            self._study = optuna.create_study(
                storage=open_storage(path),
                study_name=name,
                directions=["maximize" if mode == "max" else "minimize" for mode in search.modes],
                load_if_exists=True,
                sampler=RandomSampler(),
                pruner=pruner_of(search),
            )
            check_states(self.trials(), path)
        except InputError:
            raise
        except Exception as error:  # database drivers raise many types; the storage cannot be read
            reason = " ".join(str(error).split())[:120]
            raise InputError(
                f"{path} is not a readable Optuna storage ({reason}); give another --out"
            ) from None
        before = self._study.user_attrs.get(SEARCHED, searched)
        if before != searched:
            raise InputError(
                f"{path} holds a search of another space, base, teacher or dataset, or by another metric; "
                "give another --out, or undo the change"
            )
        self._study.set_user_attr(SEARCHED, searched)
        with quiet():
            self._study.set_metric_names(list(search.metrics))
        self._dimensions = {dimension.key: dimension for dimension in search.space}
        for point in search.enqueue:
            self._enqueue(point, skip=True)
        self._grid = search.shuffled_grid() if search.sampler == "grid" else []

    def left_running(self) -> list[Trial]:
        """Trials that were asked and never told, by number: those of a killed run."""
        running = self.trials(TrialState.RUNNING)
        # The public API only creates trials, with new numbers.
        return [Trial(self._study, trial._trial_id) for trial in running]

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """Trials by number, in the given states or in any state."""
        return self._study.get_trials(deepcopy=False, states=states or None)

    @property
    def asked(self) -> int:
        """Number of trials that were asked."""
        return len(self.trials(TrialState.RUNNING, *TOLD))

    def ask(self) -> Trial:
        """Ask for a new trial; like the tell methods, raises `FolderError` if the storage is not writable."""
        with writing_folder(self.path.parent):
            return self._ask()

    def _ask(self) -> Trial:
        number = self.asked
        self._study.sampler = sampler_of(self.search, number)
        if not self.trials(TrialState.WAITING):
            if self._grid:
                taken = [t.user_attrs[GRID_POINT] for t in self.trials() if GRID_POINT in t.user_attrs]
                place = max(taken, default=-1) + 1
                self._enqueue(self._grid[place], {GRID_POINT: place})
            elif self.search.sampler in NOTHING_TWICE:
                self._enqueue(proposal(self.search, self.trials(), number))
        return self._study.ask()

    def _enqueue(
        self, point: Mapping[str, Value], attributes: dict[str, int] | None = None, *, skip: bool = False
    ) -> None:
        """Let the next ask return this point; with `skip`, do nothing if it was enqueued before."""
        stored = {key: _stored(self._dimensions[key], value) for key, value in point.items()}
        self._study.enqueue_trial(stored, user_attrs=attributes, skip_if_exists=skip)

    def values(self, trial: Trial) -> dict[str, Value]:
        """The values of a running trial, by key; a repeated call returns the same values."""
        chosen: dict[str, Value] = {}
        for dimension in self.search.space:
            if dimension.asked_at(chosen):
                chosen[dimension.key] = value_of(dimension, suggested(trial, dimension))
        return chosen

    def values_told(self, trial: FrozenTrial) -> dict[str, Value]:
        """Like `values`, for a stored trial."""
        return point_of(self.search, trial)

    def tell(self, trial: Trial, values: Sequence[float]) -> None:
        """Tell the trial's values: the means of its replicates, one for each metric."""
        with writing_folder(self.path.parent):
            self._study.tell(trial, list(values))

    def tell_failed(self, trial: Trial, reason: str) -> None:
        """Tell that the trial failed, with the first 500 characters of the reason."""
        with writing_folder(self.path.parent):
            trial.set_user_attr(REASON, reason[:500])
            self._study.tell(trial, state=TrialState.FAIL)

    def tell_stopped(self, trial: Trial) -> None:
        """Tell that the scheduler stopped the trial; its last reported value counts."""
        with writing_folder(self.path.parent):
            self._study.tell(trial, state=TrialState.PRUNED)

    def best(self) -> list[FrozenTrial]:
        """The best complete trial, or the Pareto front of several objectives."""
        if not self.trials(TrialState.COMPLETE):
            return []
        return [self._study.best_trial] if len(self.search.metrics) == 1 else self._study.best_trials

    def importances(self) -> Mapping[str, float]:
        """Importance of each key (PED-ANOVA); empty with several metrics or too few complete trials."""
        complete = self.trials(TrialState.COMPLETE)
        if len(self.search.metrics) > 1 or len(complete) < LEAST_FOR_IMPORTANCE:
            return {}
        with quiet():
            evaluator = optuna.importance.PedAnovaImportanceEvaluator()
            return dict(optuna.importance.get_param_importances(self._study, evaluator=evaluator))


class PointPruner:
    """A scheduler: compares a student with others of the search at the same rung.

    It may run in another process than `Points`; both use the same storage.
    """

    def __init__(self, path: Path, name: str, search: SearchSpec) -> None:
        self._study = optuna.load_study(
            storage=open_storage(path), study_name=name, sampler=RandomSampler(), pruner=pruner_of(search)
        )

    def should_continue(self, trial: int, rung: int, val_acc: float) -> bool:
        """Report the validation accuracy at a rung; whether the trial should continue."""
        running = Trial(self._study, self._study.get_trials(deepcopy=False)[trial]._trial_id)
        with quiet():
            # A student that restarts after a kill reports the same value again; Optuna warns and ignores it.
            running.report(val_acc, rung)
        return not running.should_prune()
