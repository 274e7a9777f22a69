"""The work of a plan, and of a point that a search suggests."""

from __future__ import annotations

from collections.abc import Iterable

from raydc.spec.facts import DataFacts
from raydc.spec.plan import Plan, Planned, set_size, trajectory_jobs
from raydc.store.artifact import Store
from raydc.worker.label_work import LabelWork
from raydc.worker.learned_work import LearnedWork
from raydc.worker.set_work import SetWork
from raydc.worker.trajectory_work import TrajectoryWork
from raydc.worker.work import Work

CLASSES: tuple[type[Work], ...] = (TrajectoryWork, SetWork, LabelWork, LearnedWork)
"""Every kind of work."""


def work_of(plan: Plan, classes: int) -> list[Work]:
    """All work that the evaluations of a plan need; dependencies come first."""
    sizes = {name: set_size(job.evaluation, classes) for name, job in plan.sets.items()}
    return [
        *map(TrajectoryWork, plan.trajectories.values()),
        *map(SetWork, plan.sets.values()),
        *(LabelWork(p, sizes[p.compressed_set]) for p in plan.passes.values()),
        *map(LearnedWork, plan.learned.values()),
    ]


def missing_work(plan: Plan, store: Store, facts: DataFacts) -> list[Work]:
    """The part of `work_of` that must be made: a teacher only if missing work needs it, and only the epochs
    that are needed."""
    left = [work for work in work_of(plan, facts.classes) if not isinstance(work, TrajectoryWork)]
    left = [work for work in left if not work.is_made(store)]
    return [*_teachers(left, store), *left]


def _teachers(works: Iterable[Work], store: Store) -> list[Work]:
    """Networks that some work needs and that are not in the store."""
    works = list(works)
    jobs = trajectory_jobs(
        (work.job for work in works if isinstance(work, SetWork)),
        (work.label_pass for work in works if isinstance(work, LabelWork)),
    )
    teachers = map(TrajectoryWork, jobs.values())
    return [teacher for teacher in teachers if not teacher.is_made(store)]


def teachers_of(plan: Plan, store: Store) -> list[Work]:
    """Networks that a plan needs and that are not in the store."""
    teachers = map(TrajectoryWork, plan.trajectories.values())
    return [teacher for teacher in teachers if not teacher.is_made(store)]


def work_of_point(planned: Planned) -> list[Work]:
    """Work that an evaluation of a search needs, apart from teachers and the labels that they make."""
    assert planned.origin is not None
    works: list[Work] = [SetWork(planned.origin.set_job)]
    if planned.learned is not None:
        works.append(LearnedWork(planned))
    return works
