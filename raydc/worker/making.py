"""Making the work that evaluations wait for, piece by piece, in this process."""

from __future__ import annotations

from raydc.spec.plan import Plan
from raydc.store.saved import OnProgress, Saved
from raydc.training.group import Group
from raydc.worker.evaluate import error_text
from raydc.worker.planned_work import work_of
from raydc.worker.work import Work
from raydc.worker.workbench import Workbench


def unwatched(done: int, total: int) -> None:
    """Ignore progress."""
    del done, total


def make(work: Work, bench: Workbench, progress: OnProgress = unwatched) -> None:
    """Make a piece of work unless it is in the store, resuming from its last saved state.

    What it needs must be in the store. `progress` is called with (steps done, steps in total).
    """
    if not Group.here().agreed(work.is_made(bench.store)):
        saved = Saved(bench.store, work.id)
        work.make(bench, saved, progress)
        if Group.here().leads and work.trains:
            saved.clear()


def make_everything(plan: Plan, bench: Workbench) -> dict[str, str]:
    """Make what the evaluations of `plan` wait for, in this process.

    Returns the reason for each piece of work that could not be made, by id; work that needs it is not tried.
    """
    broken: dict[str, str] = {}
    for work in work_of(plan, bench.dataset.classes):
        reason = next((broken[need] for need in work.needs if need in broken), None)
        if reason is None:
            try:
                make(work, bench)
            except Exception as problem:
                reason = error_text(problem)
        if reason is not None:
            broken[work.id] = reason
    return broken
