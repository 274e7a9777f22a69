"""The runner: takes a plan through its stages on a Ray cluster.

    trajectories   Ray tasks in parallel; each streams its progress and resumes from its checkpoints;
                   with `teacher_workers`, several Ray Train workers per trajectory
    sets           Ray tasks
    labels         teacher actors, with a bounded number of open passes
    learned        Ray tasks, for labels that are learnt; each resumes from its last saved step
    evaluations    Tune trials on reused workers; rows go to the sink as they end

A search makes its teachers, then starts evaluations at once: the set and the learned labels of a point are
made by the student workers when the point is suggested, labels of teachers when a student requests them. A
stage starts when the previous one has ended, and work in the store is not made again. Work that cannot be
made fails only the evaluations that wait for it. If an artifact that existed before is missing, all stages
are repeated, at most `retries` times.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ray import tune

from raydc.errors import InputError, StoreError
from raydc.orchestration.bundle_searcher import BundleSearcher, CannotGoOn, More, no_more
from raydc.orchestration.cluster import Capacity
from raydc.orchestration.pending import PendingWork
from raydc.orchestration.prerequisites import TEACHERS_SHARE, Prerequisites, gpu_share, teacher_share
from raydc.orchestration.progress import Progress, Steps
from raydc.orchestration.pruner import RemotePruner
from raydc.orchestration.teacher_actor import TeacherPool, only_free
from raydc.orchestration.together import check_workers
from raydc.orchestration.trainable import StudentWorker
from raydc.orchestration.worker_context import WorkerContext
from raydc.orchestration.worker_scheduler import WorkerScheduler
from raydc.search.ask_tell import Search
from raydc.spec.facts import DataFacts
from raydc.spec.plan import Plan, Planned, student_cost
from raydc.spec.result import Row, not_started
from raydc.spec.study_file import Resources
from raydc.store.artifact import Store
from raydc.worker.planned_work import missing_work, teachers_of, work_of_point
from raydc.worker.work import Work
from raydc.worker.workbench import Pruner

T = TypeVar("T")
TUNE_FOLDERS = "raydc-tune-"
"""Prefix of the names of Tune's own folders, followed by the id of the owning process."""
SEARCHED_TOGETHER = {"cpu": 2, "gpu": 16}
"""Number of open students of a search per worker: one in training and the next one, or a pack."""


@dataclass
class Stages:
    """Times and counts of the stages."""

    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time in seconds by stage."""
    student_seconds: float = 0.0
    """Time inside the workers, summed over the evaluations of this run."""
    workers: int = 1
    images_forwarded: int = 0
    """Number of images that teachers labelled in this run."""

    @property
    def efficiency(self) -> float | None:
        """Fraction of the workers' time used by students; None if none ran."""
        wall = self.seconds.get("evaluations", 0.0)
        return self.student_seconds / (self.workers * wall) if wall and self.student_seconds else None


class Runner:
    """One run of a plan."""

    def __init__(
        self,
        plan: Plan,
        *,
        context: WorkerContext,
        facts: DataFacts,
        store: Store,
        resources: Resources,
        study: str,
        progress: Progress,
        sink: Callable[[Sequence[Row]], None],
        decode: Callable[[], object],
    ) -> None:
        """`decode` ensures that the dataset's images are in the store."""
        self.plan = plan
        self.context = context
        self.facts = facts
        self.store = store
        self.resources = resources
        self.study = study
        self.progress = progress
        self.stages = Stages()
        self._write = sink
        self._decode = decode
        self._pool: TeacherPool | None = None
        self._attempts: dict[str, int] = {}
        """Number of attempts of evaluations and work, by id."""
        self._to_come: Callable[[], int] = lambda: 0
        """Returns the number of evaluations that a search has not suggested yet."""

    def _prerequisites(self, plan: Plan, capacity: Capacity) -> Prerequisites:
        check_workers(plan, self.facts, self.resources, capacity)
        prerequisites = Prerequisites(
            capacity,
            context=self.context,
            facts=self.facts,
            resources=self.resources,
            progress=self.progress,
        )
        self.stages.workers = capacity.workers
        return prerequisites

    def run(self, capacity: Capacity, before_evaluations: Callable[[], object]) -> Stages:
        """Run the plan to its end; `KeyboardInterrupt` passes through between two reports.

        `before_evaluations` is called once their prerequisites are made; it may raise. Raises `StoreError` or
        `FolderError` if results can no longer be stored.
        """
        plan = self.plan
        try:
            for left in reversed(range(self.resources.retries + 1)):
                prerequisites = self._prerequisites(plan, capacity)
                self._make(prerequisites, missing_work(plan, self.store, self.facts))
                before_evaluations()
                evaluate = partial(self._evaluations, plan, prerequisites, left > 0)
                again = self._timed("evaluations", evaluate)
                if not again:
                    break
                self._prepare_rebuild(len(again))
                plan = plan.without({planned.id for planned in plan.evaluations} - again)
        finally:
            self._stop(self._pool)
        return self.stages

    def _make(self, prerequisites: Prerequisites, works: Sequence[Work]) -> None:
        """Make work, one kind after the other in the order of `works`."""
        if self._pool is None and any(work.label_pass is not None for work in works):
            self._pool = self._start_teachers(prerequisites.capacity)
        kinds = dict.fromkeys(work.kind for work in works)
        for kind in kinds:
            part = [work for work in works if work.kind is kind]
            self._timed(kind.name, partial(prerequisites.make, part, self._pool))

    def _prepare_rebuild(self, count: int) -> None:
        """Recheck the store so that missing or damaged artifacts are rebuilt, for `count` evaluations."""
        self.progress.note(f"rebuilding a missing or damaged artifact; evaluations that wait for it: {count}")
        self.store.recheck()
        if self.store.is_intact("pixels", self.context.pixels):
            return
        try:
            self._decode()
        except InputError as error:
            raise StoreError(f"the dataset's images are missing from the store, and {error}") from error

    def search(self, search: Search, capacity: Capacity, before_evaluations: Callable[[], object]) -> Stages:
        """As `run`, for a search; the plan contains its examples."""
        prerequisites = self._prerequisites(self.plan, capacity)
        pruner: RemotePruner | None = None
        try:
            if self.plan.passes:
                self._pool = self._start_teachers(capacity)
            if search.spec.prunes:
                pruner = RemotePruner.start(search.points.path, self.study, search.spec)
            self._make(prerequisites, teachers_of(self.plan, self.store))
            before_evaluations()
            self._timed("evaluations", lambda: self._points(search, prerequisites, pruner))
            if self._pool is not None:
                self.stages.images_forwarded = self._pool.images_forwarded()
        finally:
            self._stop(self._pool, pruner)
        return self.stages

    @staticmethod
    def _stop(*helpers: TeacherPool | RemotePruner | None) -> None:
        for helper in helpers:
            if helper is not None:
                helper.stop()

    def _timed(self, stage: str, work: Callable[[], T]) -> T:
        start = time.monotonic()
        try:
            return work()
        finally:
            taken = self.stages.seconds.get(stage, 0.0)
            self.stages.seconds[stage] = taken + time.monotonic() - start

    def _start_teachers(self, capacity: Capacity) -> TeacherPool:
        """Permanent replicas share a small part of the GPUs with students; further ones take a whole GPU, or
        a core without GPUs, only during the label stage, before students start."""
        fewest, most = self.resources.replicas(capacity.places)
        common: dict[str, Any] = {"num_cpus": 0, "max_concurrency": 1000}
        if most > 1:
            common["scheduling_strategy"] = "SPREAD"
        whole = {"num_gpus": 1} if capacity.gpus else {"num_cpus": 1}
        apart = fewest > 1 and capacity.gpus > 1
        with only_free(TEACHERS_SHARE, int(capacity.gpus)) if apart else nullcontext():
            pool = TeacherPool.start(
                replace(self.context, threads=1),
                fewest,
                {**common, "num_gpus": teacher_share(fewest, capacity.gpus)},
                {**common, **whole},
            )
            if apart:
                pool.wait()
        return pool

    # --- evaluations --------------------------------------------------------------------------

    def _evaluations(self, plan: Plan, prerequisites: Prerequisites, rebuilds: bool) -> set[str]:
        """Run the evaluations that can start; returns the ids to try again, none unless `rebuilds`."""
        self.stages.images_forwarded += prerequisites.images_forwarded
        able, lost = not_started(
            plan, prerequisites.broken, study=self.study, dataset_id=self.facts.dataset_id
        )
        again: set[str] = set()
        if rebuilds:
            again = {p.id for p in plan.evaluations if not prerequisites.lost.isdisjoint(p.needs)}
            lost = [row for row in lost if row["evaluation_id"] not in again]
        self.progress.stage("evaluations", len(able) + len(lost), "evaluations")
        if lost:
            self._take(lost, None)
        if able:
            again |= {p.id for p in self._tune(able, prerequisites.capacity, rebuilds=rebuilds)}
        return again

    def _points(self, search: Search, prerequisites: Prerequisites, pruner: Pruner | None) -> None:
        capacity = prerequisites.capacity
        search.keep_busy(capacity.workers * SEARCHED_TOGETHER["gpu" if capacity.gpus else "cpu"])
        self._to_come = search.to_come
        self.progress.stage("evaluations", search.to_come(), "evaluations at most")
        asked = search.ask()
        # Each round costs an evaluation one of its attempts.
        while asked:
            asked = self._tune(asked, capacity, pruner, search.hear)
            if asked:
                self._prepare_rebuild(len(asked))
                self._make(prerequisites, teachers_of(self.plan, self.store))

    def _tune(
        self,
        evaluations: Sequence[Planned],
        capacity: Capacity,
        pruner: Pruner | None = None,
        more: More = no_more,
        *,
        rebuilds: bool = True,
    ) -> list[Planned]:
        """Run evaluations; with `rebuilds`, returns those that lack an artifact, to be tried again."""
        facts, resources = self.facts, self.resources
        tests = facts.test_images + facts.val_images
        searching = more is not no_more
        workers = capacity.workers if searching else min(capacity.workers, len(evaluations))
        self.stages.workers = workers
        bundle_searcher = BundleSearcher(
            evaluations,
            cost=lambda p: student_cost(p.evaluation, facts.classes, tests),
            workers=workers,
            retries=resources.retries,
            study=self.study,
            dataset_id=facts.dataset_id,
            sink=lambda rows: self._take(rows, bundle_searcher),
            more=more,
            timeout_seconds=resources.evaluation_timeout_seconds,
            packed=bool(capacity.gpus),
            attempts=self._attempts,
            rebuilds=rebuilds,
            pending=PendingWork(work_of_point, self.store, workers) if searching else None,
            on_work=_Beside(self.progress),
        )
        worker = tune.with_parameters(
            StudentWorker,
            context=replace(self.context, threads=resources.threads),
            teachers=self._pool,
            pruner=pruner,
            study=self.study,
            dataset_id=facts.dataset_id,
            timeout_seconds=resources.evaluation_timeout_seconds,
        )
        _run_tune(tune.with_resources(worker, student_request(resources, capacity)), bundle_searcher, workers)
        return bundle_searcher.lost

    def _take(self, rows: Sequence[Row], bundle_searcher: BundleSearcher | None) -> None:
        self._write(rows)
        self.stages.student_seconds += sum(r["finished_at"] - r["started_at"] for r in rows)
        left = bundle_searcher.seconds_left(self._to_come()) if bundle_searcher is not None else None
        self.progress.results(rows, None if left is None else left / self.stages.workers)


class _Beside:
    """Reports the progress of work that student workers make."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._steps = Steps()
        self._open: dict[str, Work] = {}

    def __call__(self, work: Work, done: int, total: int) -> None:
        """Report the steps of a piece of work; both counts are 0 when it has ended."""
        if not total:
            self._open.pop(work.id, None)
        elif work.trains:
            if work.id not in self._open:
                self._steps.begin(work.id, total)
                self._open[work.id] = work
            self._steps.report(time.monotonic(), work.id, done, total)
        self._progress.beside(self._text())

    def _text(self) -> str:
        texts = []
        for kind in dict.fromkeys(work.kind for work in self._open.values()):
            names = [name for name, work in self._open.items() if work.kind is kind]
            done, total = self._steps.of(names)
            texts.append(f"{kind.name}: {done:,}/{total:,} {kind.unit_trained}")
        if texts and self._steps.per_minute is not None:
            texts[-1] += f", {self._steps.per_minute:,.0f}/min"
        return "; ".join(texts)


def student_request(resources: Resources, capacity: Capacity) -> dict[str, float]:
    """The resources that Tune requests per student worker; it starts as many workers as fit."""
    if capacity.gpus:
        return {"cpu": resources.threads, "gpu": gpu_share(resources, capacity)}
    # With fewer workers than cores, each takes more cores, so that no further worker fits.
    part = min(capacity.cpus / capacity.workers, capacity.node_cpus)
    return {"cpu": max(resources.threads, part)}


def _run_tune(worker: Any, bundle_searcher: BundleSearcher, workers: int) -> None:
    """Let Tune run bundles until none is left; raises the reason if it cannot continue."""
    _remove_leftovers()
    folder = tempfile.mkdtemp(prefix=f"{TUNE_FOLDERS}{os.getpid()}-")
    try:
        tune.Tuner(
            worker,
            tune_config=tune.TuneConfig(
                search_alg=bundle_searcher,
                scheduler=WorkerScheduler(workers),
                num_samples=-1,
                reuse_actors=True,
                # One more trial than runs is pending per worker, so that its actor is reused.
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
    except CannotGoOn as stop:
        raise stop.reason from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_leftovers() -> None:
    """Remove Tune's folders of killed runs."""
    for path in Path(tempfile.gettempdir()).glob(f"{TUNE_FOLDERS}*"):
        owner = path.name.removeprefix(TUNE_FOLDERS).partition("-")[0]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists() and path.stat().st_uid == os.getuid():
            shutil.rmtree(path, ignore_errors=True)
