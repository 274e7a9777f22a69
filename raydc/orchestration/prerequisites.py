"""Makes the prerequisites of evaluations on Ray: one loop for every kind of work (raydc.worker.work).

    work that trains  -- one task each, with a share of the machine, or several processes (teacher_workers)
    quick work        -- several pieces per task, first in one process
    label passes      -- requested from the teacher actors (raydc.orchestration.labelling)

Kinds are made one after the other. Work in the store is not made again, and a task whose process dies is
restarted and resumes from the last saved state. Work that cannot be made is recorded with its error, and so
is the work that needs it; if the error is a missing or damaged artifact, the runner tries again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from queue import SimpleQueue
from threading import Thread
from typing import Any

import ray

from raydc.errors import ArtifactError, RaydcError
from raydc.orchestration.cluster import Capacity
from raydc.orchestration.labelling import label_all
from raydc.orchestration.progress import Progress, Steps
from raydc.orchestration.routing import Autoscaler, spread
from raydc.orchestration.teacher_actor import TeacherPool
from raydc.orchestration.together import Together, make_together
from raydc.orchestration.worker_context import WorkerContext
from raydc.spec.facts import DataFacts
from raydc.spec.study_file import Resources
from raydc.worker.making import make
from raydc.worker.work import Cores, Work

PIECES_TOGETHER = 16
"""Most quick pieces of work that one task makes."""
PROCESS_START_SECONDS = 6.0
"""Time for a worker process to start and load torch; shorter work is not distributed."""
REPORT_SECONDS = 0.5
"""Minimum time between two reports of a piece of work."""
RAY_PARTS = 10_000
"""Ray's resolution of fractional GPUs: it rounds to 1 / RAY_PARTS."""
TEACHERS_SHARE = 0.05
"""Fraction of each GPU that is reserved for teacher actors, which live as long as the run."""


def gpu_share(resources: Resources, capacity: Capacity) -> float:
    """Fraction of a GPU for a student, a training or a scorer, without the share of the teachers."""
    return resources.gpu_share * (1 - TEACHERS_SHARE) if capacity.gpus else 0.0


def teacher_share(teachers: int, gpus: float) -> float:
    """Fraction of a GPU for each teacher that shares GPUs with students; 0 without GPUs."""
    if not gpus:
        return 0.0
    together = math.ceil(teachers / gpus)
    return math.floor(RAY_PARTS * TEACHERS_SHARE / together) / RAY_PARTS


def steps_of(work: Work, facts: DataFacts) -> int:
    """Number of steps of a piece of work in its stage; quick work and unknown numbers count as one."""
    return max(1, work.cost(facts).steps or 1) if work.trains else 1


@ray.remote(num_returns="streaming", max_retries=2)
def _train(context: WorkerContext, work: Work, together: Together | None) -> Any:
    """Make a piece of work, here or by several workers, yielding (steps done, steps in total)."""
    events: SimpleQueue[tuple[int, int] | BaseException | None] = SimpleQueue()
    told_at = -math.inf

    def tell(done: int, total: int) -> None:
        nonlocal told_at
        if done == total or time.monotonic() - told_at >= REPORT_SECONDS:
            told_at = time.monotonic()
            events.put((done, total))

    def run() -> None:
        try:
            if together is None:
                make(work, context.bench(), tell)
            else:
                make_together(context, work, together, tell)
            events.put(None)
        except BaseException as error:
            events.put(error)

    Thread(target=run, daemon=True).start()
    while (event := events.get()) is not None:
        if isinstance(event, BaseException):
            raise event
        yield event


@ray.remote(max_retries=2)
def _make_some(context: WorkerContext, works: list[Work]) -> list[Exception | None]:
    """Make quick pieces of work; returns None or the error for each."""
    outcomes: list[Exception | None] = []
    for work in works:
        try:
            make(work, context.bench())
            outcomes.append(None)
        except Exception as error:  # fails only what waits for this piece
            outcomes.append(_portable(error))
    return outcomes


def _portable(error: Exception) -> Exception:
    """An error that any process can unpickle: raydc's own, or its text."""
    return error if isinstance(error, RaydcError) else RuntimeError(f"{type(error).__name__}: {error}")


@dataclass(frozen=True)
class _Event:
    """A report on a piece of work in progress."""

    work: Work
    steps: tuple[int, int] | None = None
    """(steps done, steps in total); None when it has ended."""
    error: Exception | None = None
    """Why it cannot be made; None if it can."""
    images: int = 0
    """Number of images that teachers labelled for it."""


@dataclass
class _Tasks:
    """Work made by Ray tasks."""

    context: WorkerContext
    capacity: Capacity
    resources: Resources
    open: dict[Any, list[Work]] = field(default_factory=dict)
    """Pieces by the object reference or generator of their task."""

    def run(self, works: Sequence[Work]) -> Iterator[_Event | None]:
        """Yield the reports on all pieces until each has ended, and None from time to time."""
        long = [work for work in works if work.trains]
        # Work of one group stays together, so that its inputs are read once.
        quick = sorted((w for w in works if not w.trains), key=lambda w: (w.group, w.id), reverse=True)
        threads = spread(range(len(long)), self.capacity.cpus, self.capacity.node_cpus)
        for work, share in zip(long, threads, strict=True):
            self.open[self._start(work, share)] = [work]
        started, lanes = time.monotonic(), 1
        while quick or self.open:
            while quick and sum(not works[0].trains for works in self.open.values()) < lanes:
                part = [quick.pop() for _ in range(min(PIECES_TOGETHER, len(quick)))]
                self.open[
                    self._options(_make_some, part[0], self.student_cores).remote(self._with(), part)
                ] = part
            ready, _ = ray.wait(list(self.open), timeout=1.0, fetch_local=False)
            for reference in ready:
                yield from self._hear(reference)
            if time.monotonic() - started > PROCESS_START_SECONDS:
                # Long enough to be worth starting more processes.
                lanes = self.capacity.workers
            yield None

    @property
    def student_cores(self) -> int:
        return max(1, min(self.resources.threads, self.capacity.node_cpus))

    def _with(self, threads: int | None = None) -> WorkerContext:
        return replace(self.context, threads=threads or self.student_cores)

    def _options(self, task: Any, work: Work, cores: int) -> Any:
        request = work.request
        asked: dict[str, Any] = {"num_cpus": cores}
        if self.capacity.gpus and request.gpu:
            asked["num_gpus"] = gpu_share(self.resources, self.capacity)
        if request.memory_bytes is not None:
            asked["memory"] = request.memory_bytes
        return task.options(**asked)

    def _start(self, work: Work, share: int) -> Any:
        """Start a long piece of work in one process or several workers; returns its generator of reports."""
        workers = self.resources.teacher_workers
        if workers == 1 or not work.request.together:
            cores = share if work.request.cores is Cores.SHARE else self.student_cores
            return self._options(_train, work, cores).remote(self._with(cores), work, None)
        cpus = max(1, int(self.capacity.cpus // max(self.capacity.gpus, workers)))
        gpu_part = 1 - TEACHERS_SHARE if self.capacity.gpus else 0.0
        together = Together(workers, cpus, gpu_part, self.resources.retries)
        return _train.options(num_cpus=0).remote(self._with(cpus), work, together)

    def _hear(self, reference: Any) -> Iterator[_Event]:
        """The reports of a ready task; the task is removed after its last report."""
        works = self.open[reference]
        try:
            if works[0].trains:
                yield _Event(works[0], steps=ray.get(next(reference)))
                return
            outcomes: Sequence[Exception | None] = ray.get(reference)
        except StopIteration:
            outcomes = [None]
        except ray.exceptions.RayError as error:
            outcomes = [error] * len(works)
        del self.open[reference]
        yield from (_Event(work, error=error) for work, error in zip(works, outcomes, strict=True))


class Prerequisites:
    """Makes the work that the evaluations of a plan need."""

    def __init__(
        self,
        capacity: Capacity,
        *,
        context: WorkerContext,
        facts: DataFacts,
        resources: Resources,
        progress: Progress,
    ) -> None:
        self.capacity = capacity
        self.context = context
        self.facts = facts
        self.resources = resources
        self.progress = progress
        self.broken: dict[str, str] = {}
        """Errors of the work that could not be made, by id."""
        self.lost: set[str] = set()
        """Ids of the work in `broken` whose error is a missing or damaged artifact."""
        self.images_forwarded = 0
        """Number of images that teachers labelled."""

    def make(self, works: Sequence[Work], pool: TeacherPool | None) -> None:
        """Make work of one kind; what it needs must be made, or be in `broken`.

        `pool`: the teachers; None if there are no label passes.
        """
        possible = [work for work in works if self._possible(work)]
        if not possible:
            return
        kind, steps = possible[0].kind, Steps()
        for work in possible:
            steps.begin(work.id, steps_of(work, self.facts))
        unit = kind.unit_trained if any(work.trains for work in possible) else kind.unit
        self.progress.stage(kind.name, steps.total, unit)
        left = {work.id: work for work in possible}
        for event in self._events(possible, pool):
            if event is not None:
                self._take(event, steps, left)
            training = sum(work.trains for work in left.values())
            detail = f"{training} training" if training else ""
            if pool is not None and self.resources.replicas(self.capacity.places)[1] > 1 and not detail:
                detail = f"{pool.size} teachers"
            self.progress.advance(steps.done, detail, total=steps.total, per_minute=steps.per_minute)

    def _events(self, works: Sequence[Work], pool: TeacherPool | None) -> Iterator[_Event | None]:
        own = [work for work in works if work.label_pass is None]
        yield from _Tasks(self.context, self.capacity, self.resources).run(own)
        asked = {work.label_pass.id: work for work in works if work.label_pass is not None}
        if asked and pool is not None:
            autoscaler = Autoscaler(*self.resources.replicas(self.capacity.places))
            passes = [work.label_pass for work in asked.values() if work.label_pass is not None]
            for label_pass, outcome in label_all(passes, pool, autoscaler):
                work = asked[label_pass.id]
                if isinstance(outcome, Exception):
                    yield _Event(work, error=outcome)
                else:
                    yield _Event(work, images=outcome)

    def _take(self, event: _Event, steps: Steps, left: dict[str, Work]) -> None:
        now, work = time.monotonic(), event.work
        if event.steps is not None:
            steps.report(now, work.id, *event.steps)
            return
        del left[work.id]
        steps.finish(now, work.id)
        self.images_forwarded += event.images
        if event.error is not None:
            self._failed(work, event.error)

    def _possible(self, work: Work) -> bool:
        """Whether all that a piece of work needs was made; otherwise it is marked broken with the same
        error."""
        need = next((need for need in work.needs if need in self.broken), None)
        if need is None:
            return True
        self.broken[work.id] = self.broken[need]
        if need in self.lost:
            self.lost.add(work.id)
        return False

    def _failed(self, work: Work, error: Exception) -> None:
        """Record why a piece of work cannot be made."""
        reason = _cause(error)
        self.broken[work.id] = f"{work.title}: {reason}" if work.title else reason
        if isinstance(getattr(error, "cause", error), ArtifactError):
            self.lost.add(work.id)
        if work.trains:
            self.progress.note(f"{work.title.removeprefix('the ') or work.kind.name} failed: {reason}")


def _cause(error: Exception) -> str:
    """The last line of a remote error, which is its message."""
    cause = getattr(error, "cause", None) or error
    return " ".join(str(cause).strip().split("\n")[-1].split())[:300]
