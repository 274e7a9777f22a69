"""A run from a checked study to its results: where all parts meet.

Everything that can be refused is refused before anything is trained: the study, the data, the
networks, the folder, the store and the tracking server.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from raydc import folder
from raydc.analysis.curves import varying_keys
from raydc.data.dataset import DECODED, Dataset, open_dataset
from raydc.data.imported import digest_of
from raydc.errors import InputError, TrackingError
from raydc.networks import zoo
from raydc.orchestration.progress import Progress
from raydc.result import FAILED, FINISHED, Row, reused, spec_columns
from raydc.spec import catalog
from raydc.spec.evaluation import Evaluation, TeacherSpec, canonical_json
from raydc.spec.facts import bind
from raydc.spec.plan import Plan, make_plan
from raydc.spec.point import point_grammar
from raydc.spec.study import Study
from raydc.store import Store, open_store, write_atomically
from raydc.study_page import counted, publish_origin, publish_results
from raydc.teachers.checkpoint import check_given, file_digest
from raydc.tracking.ledger import Ledger, read_rows
from raydc.tracking.tracker import PLANNED, NoTracker, Tracker
from raydc.workbench import method_keys, pool_of

logger = logging.getLogger(__name__)

TRACKER_PATIENCE_SECONDS = 60.0
"""How long the end of a run waits for a tracking server that does not answer."""
SHARE_SECONDS = 20.0
"""How often finished results are copied to the store, where other studies find them."""


@dataclass
class Summary:
    """What a run did."""

    study: str
    out: Path
    evaluations: int
    """In the plan."""
    finished: int = 0
    """Of the plan, after the run."""
    failed: int = 0
    before: int = 0
    """Finished before the run began."""
    taken_over: int = 0
    """Finished in other studies."""
    run_now: int = 0
    """Evaluations that ended in this run."""
    interrupted: bool = False
    behind: int = 0
    """Results that MLflow does not have yet."""
    wall_seconds: float = 0.0
    stage_seconds: dict[str, float] = field(default_factory=dict)
    student_seconds: float = 0.0
    workers: int = 0
    efficiency: float | None = None
    """Student seconds over (workers x wall time) of the evaluation stage."""
    forwarded: int = 0
    """Images that teachers labelled in this run."""
    forwards: int = 0
    """Images that teachers must label for the study, each (view, checkpoint) once."""
    naive_forwards: int = 0
    """Images that they would label if every evaluation had its own labelled anew."""

    @property
    def exit_code(self) -> int:
        if self.interrupted:
            return 130
        if self.failed:
            return 3
        return 4 if self.behind else 0


@dataclass(frozen=True)
class Ready:
    """A study that was found possible on its data."""

    study: Study
    dataset: Dataset
    store: Store
    plan: Plan


def with_digests(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """The evaluations with the digests of the files that they name, which stand in ids for the paths."""
    known: dict[str, str] = {}
    files = [key.name for key in point_grammar().keys.values() if key.file]

    def digests(evaluation: Evaluation) -> dict[str, str]:
        found = {}
        for key in files:
            if (path := evaluation.point.get(key)) is not None:
                if path not in known:
                    known[path] = digest_of(key, path)
                found[key] = known[path]
        return found

    def named(teacher: TeacherSpec | None) -> TeacherSpec | None:
        if teacher is None or teacher.checkpoint is None:
            return teacher
        if teacher.checkpoint not in known:
            known[teacher.checkpoint] = file_digest(teacher.checkpoint)
        return replace(teacher, digest=known[teacher.checkpoint])

    return [
        replace(e, teacher=named(e.teacher), scorer=named(e.scorer), digests=digests(e)) for e in evaluations
    ]


def check_files(evaluations: Sequence[Evaluation], dataset: Dataset) -> None:
    """Raise `InputError` if a compressed set that comes from a file does not fit the data."""
    seen: dict[str, bool] = {}
    for evaluation in evaluations:
        if not evaluation.digests:
            continue
        method = catalog.METHODS[evaluation.method]
        images = evaluation.block("images")
        name = canonical_json(images)
        if name not in seen:
            made = method.load()(pool_of(dataset, evaluation), **method_keys(evaluation))
            seen[name] = getattr(made, "soft_labels", None) is not None
        kind = catalog.LABELS[str(evaluation.point["labels.kind"])]
        if kind.brought and not seen[name]:
            raise InputError(
                f"labels.kind is {kind.name}, but the set at {images['path']!r} brings no soft labels; "
                "choose hard or soft"
            )


def get_ready(study: Study, store: Store, download: bool = False) -> Ready:
    """Open the data, check the study against them, and plan; `InputError` if it is not possible."""
    if study.system_metrics and find_spec("psutil") is None:
        raise InputError(
            f"{study.source}: tracking.system_metrics needs psutil, which is not installed; "
            "pip install 'raydc[server]'"
        )
    try:
        dataset = open_dataset(study.dataset, store, download=download)
    except InputError as error:
        raise InputError(f"{study.source}: {error}") from None
    evaluations = bind(study.evaluations(), dataset.facts, study.source)
    try:
        evaluations = with_digests(evaluations)
    except InputError as error:
        raise InputError(f"{study.source}: {error}") from None
    archs = {e.arch for e in evaluations}
    archs |= {t.arch for e in evaluations for t in (e.teacher, e.scorer) if t is not None}
    for arch in sorted(archs):
        try:
            zoo.check(arch, dataset.channels, dataset.classes, dataset.resolution)
        except InputError as error:
            raise InputError(f"{study.source}: {_key_of(arch, evaluations)}: {error}") from None
    given = {t.name: t for e in evaluations for t in (e.teacher, e.scorer) if t and not t.trained_here}
    for teacher in given.values():
        try:
            check_given(teacher, dataset, _epochs_of(teacher, evaluations))
        except InputError as error:
            raise InputError(f"{study.source}: {error}") from None
    try:
        check_files(evaluations, dataset)
    except InputError as error:
        raise InputError(f"{study.source}: {error}") from None
    return Ready(study, dataset, store, make_plan(evaluations, dataset.id))


def _epochs_of(teacher: TeacherSpec, evaluations: Sequence[Evaluation]) -> set[int]:
    """Epochs that are asked of a teacher."""
    asked = (e.point.get("labels.teacher_epoch") for e in evaluations if e.teacher == teacher)
    return {epoch for epoch in asked if epoch is not None}


def _key_of(arch: str, evaluations: Sequence[Evaluation]) -> str:
    """The key that names an architecture."""
    teachers = {
        t.name for e in evaluations for t in (e.teacher, e.scorer) if t is not None and t.arch == arch
    }
    return "student.arch" if any(e.arch == arch for e in evaluations) else f"{min(teachers)}.arch"


class Recorder:
    """Takes rows as they end: ledger first, then the tracker and, now and then, the store."""

    def __init__(self, ledger: Ledger, record: Record, store: Store, dataset_id: str) -> None:
        self._ledger = ledger
        self._record = record
        self._store = store
        self._dataset_id = dataset_id
        self._unshared: list[Row] = []
        self._shared_at = time.monotonic()

    def __call__(self, rows: Sequence[Row]) -> None:
        self._ledger.append(rows)
        self._record.tracker().record(rows)
        self._unshared += [r for r in rows if r["status"] == FINISHED]
        if time.monotonic() - self._shared_at > SHARE_SECONDS:
            self.share()

    def share(self) -> None:
        """Copy finished results to the store."""
        try:
            self._store.append_results(self._dataset_id, self._unshared)
            self._unshared = []
        except OSError as error:
            logger.warning("the store %s cannot be written (%s); tried again later", self._store.uri, error)
        self._shared_at = time.monotonic()


def run(
    study: Study,
    out: Path,
    *,
    address: str | None = None,
    tracking_uri: str | None = None,
    store_uri: str | None = None,
    download: bool = False,
    reuse: bool = True,
    progress: Progress,
    finish: Callable[[Path], Any] | None = None,
) -> Summary:
    """Run or resume `study` in the folder `out`.

    `finish(out)` is called after the last evaluation, before the tracker is closed; it draws the
    report. Raises `InputError` before anything is trained, and nothing afterwards but bugs.
    """
    began = time.monotonic()
    if address is not None:
        from raydc.orchestration.cluster import probe

        probe(address)
    study = study.located(tracking_uri, store_uri)
    store = open_store(study.store_uri or folder.default_store(out))
    folder.prepare(out, study.name)
    with folder.locked(out), ThreadPoolExecutor(max_workers=1) as pool:
        ready = get_ready(study, store, download)
        resuming = bool(read_rows(out))
        record = Record(ready, out, resuming=resuming, pool=pool)
        with Ledger(out) as ledger:
            write_atomically(out / folder.STUDY, study.to_yaml().encode())
            folder.write_plan(out, counted(ready.plan, ready.dataset.classes))
            summary = _run(ready, ledger, record, out, address, reuse, progress, finish)
    summary.wall_seconds = time.monotonic() - began
    return summary


class Record:
    """The tracker of a run, which starts while teachers are trained.

    A new study is refused when its server does not answer; one that was begun goes on without, and
    `raydc sync` mends the record.
    """

    def __init__(self, ready: Ready, out: Path, *, resuming: bool, pool: ThreadPoolExecutor) -> None:
        self._resuming = resuming
        self._tracker: Tracker | None = None
        self._starting = pool.submit(_start_tracker, ready, out)
        if ready.study.tracking_uri is not None:
            self.tracker()  # The study's own database is always there; another is waited for.

    def tracker(self) -> Tracker:
        """The started tracker, waited for if need be; `InputError` for a new study without one."""
        if self._tracker is None:
            try:
                self._tracker = self._starting.result()
            except TrackingError as error:
                self._tracker = self._without(error)
        assert self._tracker is not None
        return self._tracker

    def _without(self, error: TrackingError) -> Tracker:
        if not self._resuming:
            raise InputError(f"{error}; start the server or give another --tracking-uri")
        logger.warning("%s; the study goes on and `raydc sync` mends the record", error)
        return _Unreachable()


def _start_tracker(ready: Ready, out: Path) -> Tracker:
    from raydc.tracking.mlflow_tracker import MlflowTracker, default_uri

    study = ready.study
    varying = varying_keys([spec_columns(planned.evaluation) for planned in ready.plan.evaluations])
    tracker = MlflowTracker(
        study.tracking_uri or default_uri(out), study.name, out, varying, study.system_metrics
    )
    tracker.start()
    tracker.describe({PLANNED: len(ready.plan.evaluations)}, {})
    return tracker


class _Unreachable(NoTracker):
    """Stands in for a tracker that did not answer when a study was resumed."""

    def __init__(self) -> None:
        self._rows = 0

    def record(self, rows: Any) -> None:
        self._rows += sum(1 for row in rows if row.get("reused_from") is None)

    def close(self, status: str, patience_seconds: float) -> int:
        return self._rows


def _run(
    ready: Ready,
    ledger: Ledger,
    record: Record,
    out: Path,
    address: str | None,
    reuse: bool,
    progress: Progress,
    finish: Callable[[Path], Any] | None,
) -> Summary:
    study, plan, dataset, store = ready.study, ready.plan, ready.dataset, ready.store
    recorder = Recorder(ledger, record, store, dataset.id)
    summary = Summary(study.name, out, evaluations=len(plan.evaluations))
    summary.forwards = plan.forwards(dataset.classes)
    summary.naive_forwards = plan.naive_forwards(dataset.classes)
    summary.before = sum(1 for p in plan.evaluations if p.id in ledger.finished())
    known = {row["evaluation_id"]: row for row in store.results(dataset.id)}
    own = [r for n, r in ledger.rows.items() if r["status"] == FINISHED and n not in known]
    store.append_results(dataset.id, [r for r in own if r["reused_from"] is None])
    if reuse:
        left = plan.without(ledger.finished())
        taken = [reused(known[p.id], p, study.name) for p in left.evaluations if p.id in known]
        if taken:
            ledger.append(taken)
            summary.taken_over = len(taken)
    earlier = list(ledger.rows)
    left = plan.without(ledger.finished())
    if summary.before or summary.taken_over:
        progress.note(
            f"{summary.before} of {summary.evaluations} evaluations were finished, "
            f"{summary.taken_over} are taken over from other studies"
        )
    if left.evaluations:
        _execute(ready, left, recorder, summary, address, progress, record)
    recorder.share()
    # The tracker passes over what it has, so this repairs what a kill left open.
    record.tracker().record([ledger.rows[name] for name in earlier])
    _conclude(ready, ledger, record.tracker(), out, summary, finish)
    return summary


def _execute(
    ready: Ready,
    left: Plan,
    recorder: Recorder,
    summary: Summary,
    address: str | None,
    progress: Progress,
    record: Record,
) -> None:
    from raydc.orchestration.cluster import connected
    from raydc.orchestration.runner import Runner
    from raydc.orchestration.site import Site
    from raydc.training.engine import NO_COMPILER, compiler

    study, dataset = ready.study, ready.dataset
    name = f"{dataset.fingerprint[:20]}-{study.dataset.resolution or 'native'}-{DECODED}"
    runner = Runner(
        left,
        site=Site(study.dataset, name, ready.store.uri),
        facts=dataset.facts,
        store=ready.store,
        resources=study.resources,
        study=study.name,
        progress=progress,
        sink=recorder,
    )
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        with connected(address, study.resources) as capacity:
            if not capacity.gpus and compiler() is None:
                progress.note(NO_COMPILER)
            runner.run(capacity, before_evaluations=record.tracker)
    except KeyboardInterrupt:
        summary.interrupted = True
    finally:
        signal.signal(signal.SIGTERM, previous)
    stages = runner.stages
    summary.stage_seconds = stages.seconds
    summary.student_seconds = stages.student_seconds
    summary.workers = stages.workers
    summary.efficiency = stages.efficiency
    summary.forwarded = stages.images_forwarded


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _conclude(
    ready: Ready,
    ledger: Ledger,
    tracker: Tracker,
    out: Path,
    summary: Summary,
    finish: Callable[[Path], Any] | None,
) -> None:
    """Count, write the table, draw the report, close the record."""
    status = {p.id: ledger.rows.get(p.id, {}).get("status") for p in ready.plan.evaluations}
    summary.finished = sum(1 for s in status.values() if s == FINISHED)
    summary.failed = sum(1 for s in status.values() if s == FAILED)
    if not summary.interrupted:
        # Tune has ended, so an evaluation without a row is one that nobody ran.
        summary.failed += sum(1 for s in status.values() if s is None)
    summary.run_now = summary.finished - summary.before - summary.taken_over
    folder.write_results(out, folder.with_run_ids(out, ledger.rows))
    if finish is not None and summary.finished and not summary.interrupted:
        finish(out)
    if summary.efficiency:
        tracker.describe({"parallel_efficiency": summary.efficiency}, {})
    publish_origin(tracker, ready.dataset, ready.plan, ready.store)
    publish_results(tracker, list(ledger.rows.values()), out)
    over = "KILLED" if summary.interrupted else "FAILED" if summary.failed else "FINISHED"
    summary.behind = tracker.close(over, TRACKER_PATIENCE_SECONDS)
    folder.write_results(out, folder.with_run_ids(out, ledger.rows))
