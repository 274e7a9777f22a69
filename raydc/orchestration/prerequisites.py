"""What evaluations wait for, made by Ray tasks and actors: trajectories, sets, labels, learned labels.

What is in the store is not made again. Something that cannot be made is remembered with its reason, and so is
what waits for it; where the reason is an artifact that is missing or damaged, the runner tries once more.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from queue import SimpleQueue
from threading import Thread
from typing import Any

import ray

from raydc.errors import ArtifactError, InputError, RaydcError
from raydc.networks import zoo
from raydc.orchestration.cluster import Capacity
from raydc.orchestration.labelling import label_all
from raydc.orchestration.progress import Progress
from raydc.orchestration.routing import Autoscaler, spread
from raydc.orchestration.teacher_actor import TeacherPool
from raydc.orchestration.together import Together, train_together
from raydc.orchestration.worker_context import WorkerContext
from raydc.spec.facts import DataFacts
from raydc.spec.plan import LabelPass, Plan, Planned, SetJob, TrajectoryJob, trajectory_jobs
from raydc.spec.study_file import Resources
from raydc.store.artifact import Store
from raydc.teachers.checkpoint import not_stored
from raydc.teachers.expert import missing
from raydc.training.group import check_together

SETS_TOGETHER = 16
"""Compressed sets that one task makes."""
PROCESS_START_SECONDS = 6.0
"""What a worker process takes to start and to load torch; shorter work is not spread."""
RAY_PARTS = 10_000
"""Ray counts in such parts of a GPU, and rounds."""
TEACHERS_SHARE = 0.05
"""Part of each GPU that is kept for teacher actors, which live as long as the run."""


def gpu_share(resources: Resources, capacity: Capacity) -> float:
    """Part of a GPU that a student, a training or a scorer takes; the teachers keep theirs."""
    return resources.gpu_share * (1 - TEACHERS_SHARE) if capacity.gpus else 0.0


def teacher_share(teachers: int, gpus: float) -> float:
    """Part of a GPU that each of the teachers takes that share GPUs with students; 0 where there is none."""
    if not gpus:
        return 0.0
    together = math.ceil(teachers / gpus)
    return math.floor(RAY_PARTS * TEACHERS_SHARE / together) / RAY_PARTS


@ray.remote(num_returns="streaming", max_retries=2)
def _train(context: WorkerContext, job: TrajectoryJob, together: Together | None) -> Any:
    """Make a trajectory, here or by several workers, yielding (epochs done, epochs in all)."""
    events: SimpleQueue[tuple[int, int] | BaseException | None] = SimpleQueue()

    def tell(done: int, total: int) -> None:
        events.put((done, total))

    def work() -> None:
        try:
            if together is None:
                context.bench().make_trajectory(job, tell)
            else:
                train_together(context, job, together, tell)
            events.put(None)
        except BaseException as error:
            events.put(error)

    Thread(target=work, daemon=True).start()
    while (event := events.get()) is not None:
        if isinstance(event, BaseException):
            raise event
        yield event


@ray.remote(max_retries=2)
def _make_sets(context: WorkerContext, jobs: list[SetJob]) -> list[tuple[str, Exception | None]]:
    """Make compressed sets; each id with None or why it cannot be made."""
    made: list[tuple[str, Exception | None]] = []
    for job in jobs:
        try:
            context.bench().make_set(job)
            made.append((job.id, None))
        except Exception as error:  # the evaluations that wait for this set fail, and only those
            made.append((job.id, _portable(error)))
    return made


def _portable(error: Exception) -> Exception:
    """An error that any process can read: raydc's own, or its text."""
    return error if isinstance(error, RaydcError) else RuntimeError(f"{type(error).__name__}: {error}")


@ray.remote(max_retries=2)
def _learn(context: WorkerContext, planned: Planned) -> None:
    """Learn the labels of an evaluation."""
    context.bench().learn_labels(planned)


class Prerequisites:
    """What the evaluations of a plan wait for."""

    def __init__(
        self,
        plan: Plan,
        capacity: Capacity,
        *,
        context: WorkerContext,
        facts: DataFacts,
        store: Store,
        resources: Resources,
        progress: Progress,
    ) -> None:
        self.plan = plan
        self.capacity = capacity
        self.context = context
        self.facts = facts
        self.store = store
        self.resources = resources
        self.progress = progress
        self.broken: dict[str, str] = {}
        """What could not be made (trajectory, set or pass), with the reason."""
        self.lost: set[str] = set()
        """What of it could not be made for want of an artifact that is missing or damaged."""
        self.images_forwarded = 0
        """Images that teachers labelled."""
        share = gpu_share(resources, capacity)
        self._gpu = {"num_gpus": share} if capacity.gpus else {}

    def _possible(self, name: str, needs: Iterable[str]) -> bool:
        """Whether all that `name` waits for was made; it is broken for the same reason otherwise."""
        need = next((need for need in needs if need in self.broken), None)
        if need is None:
            return True
        self.broken[name] = self.broken[need]
        if need in self.lost:
            self.lost.add(name)
        return False

    def _failed(self, name: str, error: Exception, what: str = "") -> None:
        """Remember why `name` cannot be made; `what` says what it is."""
        self.broken[name] = what + _cause(error)
        if isinstance(getattr(error, "cause", error), ArtifactError):
            self.lost.add(name)

    # --- trajectories -------------------------------------------------------------------------

    def trajectories(self, sets: Mapping[str, SetJob], passes: Mapping[str, LabelPass]) -> None:
        """Train, or fetch, the networks that some sets and label passes ask for."""
        asked = trajectory_jobs(sets.values(), passes.values())
        jobs = [job for job in asked.values() if self._incomplete(job)]
        if not jobs:
            return
        epochs = {job.id: max([*job.epochs, job.scored, 1]) for job in jobs}
        self.progress.stage("teachers", sum(epochs.values()), "epochs")
        threads = spread(epochs.values(), self.capacity.cpus, self.capacity.node_cpus)
        streams = {self._start_training(job, n): job for job, n in zip(jobs, threads, strict=True)}
        done = dict.fromkeys(epochs, 0)
        while streams:
            ready, _ = ray.wait(list(streams), timeout=1.0, fetch_local=False)
            for stream in ready:
                job = streams[stream]
                try:
                    done[job.id] = ray.get(next(stream))[0]
                except StopIteration:
                    done[job.id] = epochs[job.id]
                    del streams[stream]
                except ray.exceptions.RayError as error:
                    self._failed(job.id, error, f"the teacher {job.teacher.name!r}: ")
                    self.progress.note(f"teacher {job.teacher.name!r} failed: {_cause(error)}")
                    del streams[stream]
            self.progress.advance(sum(done.values()), f"{len(streams)} training")

    def _start_training(self, job: TrajectoryJob, threads: int) -> Any:
        """The stream of a training by one process of some threads, or by several workers."""
        workers = self.resources.teacher_workers
        if workers == 1 or not job.teacher.trained_here:
            return _train.options(num_cpus=threads, **self._gpu).remote(
                replace(self.context, threads=threads), job, None
            )
        cpus = max(1, int(self.capacity.cpus // max(self.capacity.gpus, workers)))
        gpu_part = 1 - TEACHERS_SHARE if self.capacity.gpus else 0.0
        together = Together(workers, cpus, gpu_part, self.resources.retries)
        return _train.options(num_cpus=0).remote(replace(self.context, threads=cpus), job, together)

    def check_together(self) -> None:
        """Raise `InputError` if teachers cannot be trained by as many workers as the study asks for."""
        workers = self.resources.teacher_workers
        if workers == 1:
            return
        there = int(self.capacity.gpus) or self.capacity.cpus
        if workers > there:
            raise InputError(
                f"resources.teacher_workers is {workers}, but there are {there} "
                f"{'GPUs' if self.capacity.gpus else 'CPU cores'}; choose at most that"
            )
        facts = self.facts
        for job in self.plan.trajectories.values():
            if job.teacher.trained_here:
                network = zoo.build(job.teacher.arch, facts.channels, facts.classes, facts.resolution)
                check_together(
                    job.teacher.recipe, network, sum(facts.train_counts), workers, gpus=self.capacity.gpus > 0
                )

    def _incomplete(self, job: TrajectoryJob) -> bool:
        if job.teacher.trained_here:
            return any(missing(job, self.store))
        return bool(not_stored(job, self.store))

    # --- compressed sets ----------------------------------------------------------------------

    def sets(self, sets: Mapping[str, SetJob]) -> None:
        """Make compressed sets; their scorers must be made."""
        jobs = [job for job in sets.values() if self._possible(job.id, job.scorers)]
        if not jobs:
            return
        self.progress.stage("sets", len(jobs), "sets")
        # Sets of one scorer stay together: its features or scores are read once.
        jobs.sort(key=lambda job: (job.scorers, job.id), reverse=True)
        total, lanes = len(jobs), 1
        started = time.monotonic()
        open_parts: dict[Any, list[SetJob]] = {}
        while jobs or open_parts:
            while jobs and len(open_parts) < lanes:
                part = [jobs.pop() for _ in range(min(SETS_TOGETHER, len(jobs)))]
                open_parts[_make_sets.options(num_cpus=1, **self._gpu).remote(self.context, part)] = part
            ready, _ = ray.wait(list(open_parts), timeout=1.0)
            for reference in ready:
                part = open_parts.pop(reference)
                try:
                    made = ray.get(reference)
                except ray.exceptions.RayError as error:
                    made = [(job.id, error) for job in part]
                for name, reason in made:
                    if reason is not None:
                        self._failed(name, reason)
            if time.monotonic() - started > PROCESS_START_SECONDS:
                # Long enough to be worth the start of more processes.
                lanes = self.capacity.workers
            self.progress.advance(total - len(jobs))

    # --- labels -------------------------------------------------------------------------------

    def labels(self, passes: Mapping[str, LabelPass], pool: TeacherPool | None) -> None:
        """Have the teachers label; sets and networks must be made."""
        waiting = [p for p in passes.values() if self._possible(p.id, (p.trajectory, p.compressed_set))]
        if not waiting or pool is None:
            return
        self.progress.stage("labels", len(waiting), "label passes")
        autoscaler = Autoscaler(*self.resources.replicas(self.capacity.places))
        for done, (label_pass, outcome) in enumerate(label_all(waiting, pool, autoscaler), 1):
            if isinstance(outcome, Exception):
                self._failed(label_pass.id, outcome, "its label pass: ")
            else:
                self.images_forwarded += outcome
            self.progress.advance(done, f"{pool.size} teachers" if autoscaler.most > 1 else "")

    # --- learned labels -----------------------------------------------------------------------

    def learned(self) -> None:
        """Learn the labels of the plan that are learnt; what they begin with must be made."""
        asked_for = {n: p for n, p in self.plan.learned.items() if not self.store.is_intact("learned", n)}
        jobs = {n: p for n, p in asked_for.items() if self._possible(n, p.prerequisites)}
        if not jobs:
            return
        self.progress.stage("learned labels", len(jobs), "sets")
        total = len(jobs)
        asked = {_learn.options(num_cpus=1, **self._gpu).remote(self.context, p): n for n, p in jobs.items()}
        while asked:
            ready, _ = ray.wait(list(asked), timeout=1.0)
            for reference in ready:
                name = asked.pop(reference)
                try:
                    ray.get(reference)
                except ray.exceptions.RayError as error:
                    self._failed(name, error, "its learned labels: ")
            self.progress.advance(total - len(asked))


def _cause(error: Exception) -> str:
    """The last line of a remote error, which says what happened."""
    cause = getattr(error, "cause", None) or error
    return " ".join(str(cause).strip().split("\n")[-1].split())[:300]
