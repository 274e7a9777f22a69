"""A run from a checked study to its results: where all parts meet.

Everything that can be refused is refused before anything is trained: the study, the data, the
networks, the folder, the store and the tracking server.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raydc import folder, searching
from raydc.orchestration.progress import Progress
from raydc.ready import Ready, get_ready, with_digests
from raydc.recording import Record, Recorder
from raydc.result import FAILED, FINISHED, Row, reused
from raydc.spec.evaluation import Evaluation
from raydc.spec.facts import bind
from raydc.spec.plan import Plan, Planned, make_plan
from raydc.spec.study import Study
from raydc.store import open_store, write_atomically
from raydc.study_page import counted, publish_origin, publish_results
from raydc.tracking.ledger import Ledger, read_rows
from raydc.tracking.tracker import Tracker

if TYPE_CHECKING:
    from raydc.orchestration.search import Search

TRACKER_PATIENCE_SECONDS = 60.0
"""How long the end of a run waits for a tracking server that does not answer."""


@dataclass
class Summary:
    """What a run did."""

    study: str
    out: Path
    evaluations: int
    """In the plan."""
    ids: frozenset[str] = frozenset()
    """Of the evaluations in the plan."""
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
    search: dict[str, Any] | None = None
    """What a search has found (raydc.searching.history_of)."""

    @property
    def exit_code(self) -> int:
        if self.interrupted:
            return 130
        if self.failed:
            return 3
        return 4 if self.behind else 0


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
            counts = {**counted(ready.plan, ready.dataset.classes), "evaluations": ready.evaluations}
            folder.write_plan(out, counts)
            others = _known_elsewhere(ready, ledger)
            run_all = _run if study.search is None else _run_search
            summary = run_all(ready, ledger, record, others if reuse else {}, out, address, progress, finish)
    summary.wall_seconds = time.monotonic() - began
    return summary


def _known_elsewhere(ready: Ready, ledger: Ledger) -> dict[str, Row]:
    """Results of all studies on these data by id, once the ledger's own are among them."""
    known = {row["evaluation_id"]: row for row in ready.store.results(ready.dataset.id)}
    own = [ledger.rows[name] for name in ledger.finished() - known.keys()]
    ready.store.append_results(ready.dataset.id, [r for r in own if r["reused_from"] is None])
    return known


def open_search(ready: Ready, out: Path, answers: searching.Answers) -> Search:
    """The search of a study in the folder `out`, begun or gone on with.

    Raises `InputError` if the folder holds another search.
    """
    from raydc.orchestration.points import FILE, Points
    from raydc.orchestration.search import Search

    study, dataset = ready.study, ready.dataset
    assert study.search is not None
    points = Points(out / FILE, study.name, study.search, searching.searched(study, dataset.id))

    def plan_of(evaluations: Sequence[Evaluation]) -> Plan:
        return make_plan(bind(with_digests(evaluations), dataset.facts, study.source), dataset.id)

    return Search(study, points, plan_of, answers)


def _run_search(
    ready: Ready,
    ledger: Ledger,
    record: Record,
    others: Mapping[str, Row],
    out: Path,
    address: str | None,
    progress: Progress,
    finish: Callable[[Path], Any] | None,
) -> Summary:
    study, dataset = ready.study, ready.dataset
    earlier = dict(ledger.rows)
    answers = searching.Answers(ledger, others, study.name)
    search = open_search(ready, out, answers)
    write_atomically(out / folder.STUDY, study.to_yaml().encode())
    summary = Summary(study.name, out, evaluations=0)
    if told := search.told():
        progress.note(f"{told} of {search.spec.points} points were told")
    recorder = Recorder(ledger, record, ready.store, dataset.id)
    if not search.over():
        _execute(ready, ready.plan, recorder, summary, address, progress, record, search)
    recorder.share()
    record.tracker().record(earlier.values())
    evaluations = [p for p in search.evaluations() if p.tested or p.id in ledger.rows]
    finished = {name for name, row in earlier.items() if row["status"] == FINISHED}
    summary.evaluations = len(evaluations)
    summary.before = sum(1 for p in evaluations if p.id in finished)
    summary.taken_over = answers.taken_over
    summary.search = searching.history_of(search, ledger)
    searching.write_history(out, summary.search)
    _conclude(ready, ledger, record.tracker(), evaluations, out, summary, finish)
    return summary


def _run(
    ready: Ready,
    ledger: Ledger,
    record: Record,
    others: Mapping[str, Row],
    out: Path,
    address: str | None,
    progress: Progress,
    finish: Callable[[Path], Any] | None,
) -> Summary:
    study, plan, dataset, store = ready.study, ready.plan, ready.dataset, ready.store
    write_atomically(out / folder.STUDY, study.to_yaml().encode())
    recorder = Recorder(ledger, record, store, dataset.id)
    summary = Summary(study.name, out, evaluations=len(plan.evaluations))
    summary.forwards = plan.forwards(dataset.classes)
    summary.naive_forwards = plan.naive_forwards(dataset.classes)
    summary.before = sum(1 for p in plan.evaluations if p.id in ledger.finished())
    left = plan.without(ledger.finished())
    if taken := [reused(others[p.id], p, study.name) for p in left.evaluations if p.id in others]:
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
    _conclude(ready, ledger, record.tracker(), plan.evaluations, out, summary, finish)
    return summary


def _execute(
    ready: Ready,
    left: Plan,
    recorder: Recorder,
    summary: Summary,
    address: str | None,
    progress: Progress,
    record: Record,
    search: Search | None = None,
) -> None:
    from raydc.orchestration.cluster import connected
    from raydc.orchestration.runner import Runner
    from raydc.orchestration.site import Site
    from raydc.training.engine import NO_COMPILER, compiler

    study, dataset = ready.study, ready.dataset
    runner = Runner(
        left,
        site=Site(study.dataset, dataset.cache, ready.store.uri),
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
            signal.signal(signal.SIGTERM, _interrupt)  # Ray has put its own in its place.
            if not capacity.gpus and compiler() is None:
                progress.note(NO_COMPILER)
            if search is None:
                runner.run(capacity, before_evaluations=record.tracker)
            else:
                runner.search(search, capacity, before_evaluations=record.tracker)
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
    evaluations: Sequence[Planned],
    out: Path,
    summary: Summary,
    finish: Callable[[Path], Any] | None,
) -> None:
    """Count, write the table, draw the report, close the record."""
    status = {p.id: ledger.rows.get(p.id, {}).get("status") for p in evaluations}
    summary.ids = frozenset(status)
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
