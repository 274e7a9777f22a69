"""Making what the evaluations of a plan wait for, in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from raydc.spec.plan import Plan
from raydc.worker.evaluate import error_text
from raydc.worker.workbench import Workbench


def make_everything(plan: Plan, bench: Workbench) -> dict[str, str]:
    """Make what the evaluations of `plan` wait for, in this process.

    Returns what could not be made (trajectory, set or label pass) with the reason; what waits for it
    is not tried.
    """
    broken: dict[str, str] = {}

    def make(name: str, needs: Iterable[str], work: Callable[[], None]) -> None:
        reason = next((broken[need] for need in needs if need in broken), None)
        if reason is not None:
            broken[name] = reason
            return
        try:
            work()
        except Exception as problem:
            broken[name] = error_text(problem)

    for trajectory in plan.trajectories.values():
        make(trajectory.id, (), partial(bench.make_trajectory, trajectory))
    for job in plan.sets.values():
        make(job.id, job.scorers, partial(bench.make_set, job))
    for label_pass in plan.passes.values():
        needs = (label_pass.trajectory, label_pass.compressed_set)
        make(label_pass.id, needs, partial(bench.ensure, label_pass))
    for name, planned in plan.learned.items():
        make(name, planned.prerequisites, partial(bench.learn_labels, planned))
    return broken
