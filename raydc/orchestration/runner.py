"""The runner: takes a plan through its stages on a Ray cluster.

    trajectories   Ray tasks, side by side; each streams its progress and resumes from its checkpoints;
                   with `teacher_workers` several workers of Ray Train a trajectory
    sets           Ray tasks
    labels         teacher actors, asked for all passes with a bounded number open
    learned        Ray tasks, for labels that are learnt; each resumes from its last saved step
    evaluations    Tune trials on workers that are used again; rows go to the sink as they end

A search makes its teachers, then goes to evaluations at once: a point's set and labels are made when it is
asked. A stage starts when the one before has ended, and what is in the store is not made again. Something
that cannot be made fails the evaluations that wait for it, and only those.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

import ray
from ray import tune

from raydc.errors import InputError, RaydcError
from raydc.networks import zoo
from raydc.orchestration.cluster import Capacity
from raydc.orchestration.feeder import Feeder, More, no_more
from raydc.orchestration.judge import RemoteJudge
from raydc.orchestration.progress import Progress
from raydc.orchestration.routing import spread
from raydc.orchestration.search import Search
from raydc.orchestration.site import Site
from raydc.orchestration.teacher_actor import TeacherPool
from raydc.orchestration.together import Together, train_together
from raydc.orchestration.trainable import StudentWorker
from raydc.result import Row, not_started
from raydc.spec.facts import DataFacts
from raydc.spec.plan import (
    LabelPass,
    Plan,
    Planned,
    SetJob,
    TrajectoryJob,
    student_cost,
    trajectory_jobs,
)
from raydc.spec.study_file import Resources
from raydc.store import Store
from raydc.teachers.checkpoint import not_stored
from raydc.teachers.expert import missing
from raydc.training.group import check_together
from raydc.workbench import Judge, labelled

SETS_TOGETHER = 16
"""Compressed sets that one task makes."""
PROCESS_START_SECONDS = 6.0
"""What a worker process takes to start and to load torch; shorter work is not spread."""
TEACHERS_SHARE = 0.05
"""Part of each GPU that is kept for teacher actors, which live as long as the run."""
TUNE_FOLDERS = "raydc-tune-"
"""Beginning of the names of Tune's own folders, followed by the process that owns them."""
SEARCHED_TOGETHER = {"cpu": 2, "gpu": 16}
"""Students of a search that are open for each worker: one that is trained and the next, or a pack."""
OPEN_PASSES = 64
"""Label passes that are asked of one replica at a time."""


@dataclass
class Stages:
    """What the stages took and did."""

    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time by stage."""
    student_seconds: float = 0.0
    """Summed over the evaluations of this run, inside their workers."""
    workers: int = 1
    images_forwarded: int = 0
    """Images that teachers labelled in this run."""

    @property
    def efficiency(self) -> float | None:
        """Part of the workers' time that students used; None if none ran."""
        wall = self.seconds.get("evaluations", 0.0)
        return self.student_seconds / (self.workers * wall) if wall and self.student_seconds else None


@ray.remote(num_returns="streaming", max_retries=2)
def _train(site: Site, job: TrajectoryJob, together: Together | None) -> Any:
    """Make a trajectory, here or by several workers, yielding (epochs done, epochs in all)."""
    events: SimpleQueue[tuple[int, int] | BaseException | None] = SimpleQueue()

    def tell(done: int, total: int) -> None:
        events.put((done, total))

    def work() -> None:
        try:
            if together is None:
                site.bench().make_trajectory(job, tell)
            else:
                train_together(site, job, together, tell)
            events.put(None)
        except BaseException as error:
            events.put(error)

    Thread(target=work, daemon=True).start()
    while (event := events.get()) is not None:
        if isinstance(event, BaseException):
            raise event
        yield event


@ray.remote(max_retries=2)
def _make_sets(site: Site, jobs: list[SetJob]) -> list[tuple[str, str | None]]:
    """Make compressed sets; each id with None or the reason why it cannot be made."""
    bench = site.bench()
    made: list[tuple[str, str | None]] = []
    for job in jobs:
        try:
            bench.make_set(job)
            made.append((job.id, None))
        except Exception as error:  # the evaluations that wait for this set fail, and only those
            text = str(error) if isinstance(error, RaydcError) else f"{type(error).__name__}: {error}"
            made.append((job.id, text))
    return made


@ray.remote(max_retries=2)
def _learn(site: Site, planned: Planned) -> None:
    """Learn the labels of an evaluation."""
    site.bench().learn_labels(planned)


class Runner:
    """One run of a plan."""

    def __init__(
        self,
        plan: Plan,
        *,
        site: Site,
        facts: DataFacts,
        store: Store,
        resources: Resources,
        study: str,
        progress: Progress,
        sink: Callable[[Sequence[Row]], None],
    ) -> None:
        self.plan = plan
        self.site = site
        self.facts = facts
        self.store = store
        self.resources = resources
        self.study = study
        self.progress = progress
        self.stages = Stages()
        self._write = sink
        self._to_come: Callable[[], int] = lambda: 0
        """Evaluations that a search has not asked for yet."""
        self._broken: dict[str, str] = {}
        """What could not be made (trajectory, set or pass), with the reason."""

    def run(self, capacity: Capacity, before_evaluations: Callable[[], object]) -> Stages:
        """Take the plan to its end; `KeyboardInterrupt` passes through between two reports.

        `before_evaluations` is called once what they wait for is made; it may raise.
        """
        self._check_together(capacity)
        self.stages.workers = capacity.workers
        sets = {n: j for n, j in self.plan.sets.items() if self.store.find("set", n) is None}
        passes = {n: p for n, p in self.plan.passes.items() if not labelled(p, self.store)}
        pool = self._start_teachers(capacity) if passes else None
        try:
            self._timed("teachers", lambda: self._trajectories(sets, passes, capacity))
            self._timed("sets", lambda: self._sets(sets, capacity))
            self._timed("labels", lambda: self._labels(passes, pool))
            self._timed("learned labels", lambda: self._learned(capacity))
            before_evaluations()
            self._timed("evaluations", lambda: self._evaluations(capacity, pool))
        finally:
            if pool is not None:
                pool.stop()
        return self.stages

    def search(self, search: Search, capacity: Capacity, before_evaluations: Callable[[], object]) -> Stages:
        """As `run`, of a search; the plan is of its examples."""
        self._check_together(capacity)
        self.stages.workers = capacity.workers
        pool = self._start_teachers(capacity) if self.plan.passes else None
        judge = RemoteJudge.start(search.points.path, self.study, search.spec) if search.spec.judged else None
        try:
            self._timed("teachers", lambda: self._trajectories(self.plan.sets, self.plan.passes, capacity))
            before_evaluations()
            self._timed("evaluations", lambda: self._points(search, capacity, pool, judge))
        finally:
            for helper in (pool, judge):
                if helper is not None:
                    helper.stop()
        return self.stages

    def _timed(self, stage: str, work: Callable[[], None]) -> None:
        start = time.monotonic()
        try:
            work()
        finally:
            self.stages.seconds[stage] = time.monotonic() - start

    def _start_teachers(self, capacity: Capacity) -> TeacherPool:
        replicas = self.resources.teacher_replicas
        gpu = {"num_gpus": TEACHERS_SHARE / replicas} if capacity.gpus else {}
        return TeacherPool.start(
            replace(self.site, threads=1), replicas, {"num_cpus": 0, "max_concurrency": 1000, **gpu}
        )

    def _possible(self, name: str, needs: Iterable[str]) -> bool:
        """Whether all that `name` waits for was made; it is broken for the same reason otherwise."""
        reason = next((self._broken[need] for need in needs if need in self._broken), None)
        if reason is not None:
            self._broken[name] = reason
        return reason is None

    def _gpu_share(self, capacity: Capacity) -> float:
        """Part of a GPU that a student, a training or a scorer takes; the teachers keep theirs."""
        return self.resources.gpu_share * (1 - TEACHERS_SHARE) if capacity.gpus else 0.0

    # --- trajectories -------------------------------------------------------------------------

    def _trajectories(
        self, sets: Mapping[str, SetJob], passes: Mapping[str, LabelPass], capacity: Capacity
    ) -> None:
        asked = trajectory_jobs(sets.values(), passes.values())
        jobs = [job for job in asked.values() if self._incomplete(job)]
        if not jobs:
            return
        epochs = {job.id: max([*job.epochs, job.scored, 1]) for job in jobs}
        self.progress.stage("teachers", sum(epochs.values()), "epochs")
        threads = spread(epochs.values(), capacity.cpus)
        streams = {self._start_training(job, n, capacity): job for job, n in zip(jobs, threads, strict=True)}
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
                    self._broken[job.id] = f"the teacher {job.teacher.name!r}: {_cause(error)}"
                    self.progress.note(f"teacher {job.teacher.name!r} failed: {_cause(error)}")
                    del streams[stream]
            self.progress.advance(sum(done.values()), f"{len(streams)} training")

    def _start_training(self, job: TrajectoryJob, threads: int, capacity: Capacity) -> Any:
        """The stream of a training by one process of some threads, or by several workers."""
        workers = self.resources.teacher_workers
        if workers == 1 or not job.teacher.trained_here:
            gpu = {"num_gpus": self._gpu_share(capacity)} if capacity.gpus else {}
            return _train.options(num_cpus=threads, **gpu).remote(
                replace(self.site, threads=threads), job, None
            )
        cpus = max(1, int(capacity.cpus // max(capacity.gpus, workers)))
        gpu_part = 1 - TEACHERS_SHARE if capacity.gpus else 0.0
        together = Together(workers, cpus, gpu_part, self.resources.retries)
        return _train.options(num_cpus=0).remote(replace(self.site, threads=cpus), job, together)

    def _check_together(self, capacity: Capacity) -> None:
        """Raise `InputError` if teachers cannot be trained by as many workers as the study asks for."""
        workers = self.resources.teacher_workers
        if workers == 1:
            return
        there = int(capacity.gpus) or capacity.cpus
        if workers > there:
            raise InputError(
                f"resources.teacher_workers is {workers}, but there are {there} "
                f"{'GPUs' if capacity.gpus else 'CPU cores'}; choose at most that"
            )
        facts = self.facts
        for job in self.plan.trajectories.values():
            if job.teacher.trained_here:
                network = zoo.build(job.teacher.arch, facts.channels, facts.classes, facts.resolution)
                check_together(
                    job.teacher.recipe, network, sum(facts.train_counts), workers, gpus=capacity.gpus > 0
                )

    def _incomplete(self, job: TrajectoryJob) -> bool:
        if job.teacher.trained_here:
            return any(missing(job, self.store))
        return bool(not_stored(job, self.store))

    # --- compressed sets ----------------------------------------------------------------------

    def _sets(self, sets: dict[str, SetJob], capacity: Capacity) -> None:
        jobs = [job for job in sets.values() if self._possible(job.id, job.scorers)]
        if not jobs:
            return
        self.progress.stage("sets", len(jobs), "sets")
        gpu = {"num_gpus": self._gpu_share(capacity)} if capacity.gpus else {}
        # Sets of one scorer stay together: its features or scores are read once.
        jobs.sort(key=lambda job: (job.scorers, job.id), reverse=True)
        total, lanes = len(jobs), 1
        started = time.monotonic()
        open_parts: list[Any] = []
        while jobs or open_parts:
            while jobs and len(open_parts) < lanes:
                part = [jobs.pop() for _ in range(min(SETS_TOGETHER, len(jobs)))]
                open_parts.append(_make_sets.options(num_cpus=1, **gpu).remote(self.site, part))
            ready, open_parts = ray.wait(open_parts, timeout=1.0)
            for made in ray.get(ready):
                self._broken |= {name: reason for name, reason in made if reason is not None}
            if time.monotonic() - started > PROCESS_START_SECONDS:
                # Long enough to be worth the start of more processes.
                lanes = capacity.workers
            self.progress.advance(total - len(jobs))

    # --- labels -------------------------------------------------------------------------------

    def _labels(self, passes: dict[str, LabelPass], pool: TeacherPool | None) -> None:
        waiting = [p for p in passes.values() if self._possible(p.id, (p.trajectory, p.compressed_set))]
        if not waiting or pool is None:
            return
        self.progress.stage("labels", len(waiting), "label passes")
        # By checkpoint, so that a replica loads each once and forwards its sets together.
        waiting.sort(key=lambda p: (p.trajectory, p.epoch or 0), reverse=True)
        total = len(waiting)
        asked: dict[Any, LabelPass] = {}
        while waiting or asked:
            while waiting and len(asked) < OPEN_PASSES * len(pool.replicas):
                label_pass = waiting.pop()
                asked[pool.ask(label_pass)] = label_pass
            ready, _ = ray.wait(list(asked), num_returns=min(16, len(asked)), timeout=0.5)
            for reference in ready:
                label_pass = asked.pop(reference)
                try:
                    self.stages.images_forwarded += ray.get(reference)
                except ray.exceptions.RayError as error:
                    self._broken[label_pass.id] = f"its label pass: {_cause(error)}"
            self.progress.advance(total - len(waiting) - len(asked))

    # --- learned labels -----------------------------------------------------------------------

    def _learned(self, capacity: Capacity) -> None:
        asked_for = {n: p for n, p in self.plan.learned.items() if self.store.find("learned", n) is None}
        jobs = {n: p for n, p in asked_for.items() if self._possible(n, p.materials)}
        if not jobs:
            return
        self.progress.stage("learned labels", len(jobs), "sets")
        gpu = {"num_gpus": self._gpu_share(capacity)} if capacity.gpus else {}
        total = len(jobs)
        asked = {_learn.options(num_cpus=1, **gpu).remote(self.site, p): n for n, p in jobs.items()}
        while asked:
            ready, _ = ray.wait(list(asked), timeout=1.0)
            for reference in ready:
                name = asked.pop(reference)
                try:
                    ray.get(reference)
                except ray.exceptions.RayError as error:
                    self._broken[name] = f"its learned labels: {_cause(error)}"
            self.progress.advance(total - len(asked))

    # --- evaluations --------------------------------------------------------------------------

    def _evaluations(self, capacity: Capacity, pool: TeacherPool | None) -> None:
        able, lost = not_started(self.plan, self._broken, study=self.study, dataset_id=self.facts.dataset_id)
        self.progress.stage("evaluations", len(able) + len(lost), "evaluations")
        if lost:
            self._take(lost, None)
        if able:
            self._tune(able, capacity, pool)

    def _points(
        self, search: Search, capacity: Capacity, pool: TeacherPool | None, judge: Judge | None
    ) -> None:
        search.keep_busy(capacity.workers * SEARCHED_TOGETHER["gpu" if capacity.gpus else "cpu"])
        self._to_come = search.to_come
        self.progress.stage("evaluations", search.to_come(), "evaluations at most")
        if first := search.ask():
            self._tune(first, capacity, pool, judge, search.hear)

    def _tune(
        self,
        evaluations: Sequence[Planned],
        capacity: Capacity,
        pool: TeacherPool | None,
        judge: Judge | None = None,
        more: More = no_more,
    ) -> None:
        facts, resources = self.facts, self.resources
        tests = facts.test_images + facts.val_images
        workers = capacity.workers if more is not no_more else min(capacity.workers, len(evaluations))
        self.stages.workers = workers
        feeder = Feeder(
            evaluations,
            cost=lambda p: student_cost(p.evaluation, facts.classes, tests),
            workers=workers,
            retries=resources.retries,
            study=self.study,
            dataset_id=facts.dataset_id,
            sink=lambda rows: self._take(rows, feeder),
            more=more,
            timeout_seconds=resources.evaluation_timeout_seconds,
            packed=bool(capacity.gpus),
        )
        worker = tune.with_parameters(
            StudentWorker,
            site=replace(self.site, threads=resources.threads),
            teachers=pool,
            judge=judge,
            study=self.study,
            timeout_seconds=resources.evaluation_timeout_seconds,
        )
        request: dict[str, float] = {"cpu": resources.threads}
        if capacity.gpus:
            request["gpu"] = self._gpu_share(capacity)
        _remove_leftovers()
        folder = tempfile.mkdtemp(prefix=f"{TUNE_FOLDERS}{os.getpid()}-")
        try:
            tune.Tuner(
                tune.with_resources(worker, request),
                tune_config=tune.TuneConfig(
                    search_alg=feeder,
                    num_samples=-1,
                    reuse_actors=True,
                    # One more than runs waits for each worker, so that its actor is kept.
                    max_concurrent_trials=2 * workers,
                ),
                run_config=tune.RunConfig(
                    name="students",
                    storage_path=folder,
                    verbose=0,
                    failure_config=tune.FailureConfig(max_failures=0),
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                ),
            ).fit()
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _take(self, rows: Sequence[Row], feeder: Feeder | None) -> None:
        self._write(rows)
        self.stages.student_seconds += sum(r["finished_at"] - r["started_at"] for r in rows)
        left = feeder.queue.seconds_left(self._to_come()) if feeder is not None else None
        self.progress.results(rows, None if left is None else left / self.stages.workers)


def _remove_leftovers() -> None:
    """Remove the folders of runs that were killed."""
    for path in Path(tempfile.gettempdir()).glob(f"{TUNE_FOLDERS}*"):
        owner = path.name.removeprefix(TUNE_FOLDERS).partition("-")[0]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists() and path.stat().st_uid == os.getuid():
            shutil.rmtree(path, ignore_errors=True)


def _cause(error: Exception) -> str:
    """The last line of a remote error, which says what happened."""
    cause = getattr(error, "cause", None) or error
    return " ".join(str(cause).strip().split("\n")[-1].split())[:300]
