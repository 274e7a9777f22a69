"""A run from a checked study to its results.

Invalid input is refused before anything is trained: the study, the data, the networks, the folder,
the store and the tracker.
"""

from __future__ import annotations

import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raydc.data.dataset import open_dataset
from raydc.errors import FolderError, InputError, StoreError
from raydc.files.atomic import write_atomically
from raydc.files.full_disk import fault, writing_folder
from raydc.orchestration.progress import Progress
from raydc.search import history
from raydc.search.answers import Answers
from raydc.spec.evaluation import Evaluation
from raydc.spec.facts import bind
from raydc.spec.plan import Plan, Planned, forwards, make_plan, naive_forwards
from raydc.spec.result import FAILED, FINISHED, STOPPED, Row, reused
from raydc.spec.study import StudySpec
from raydc.store.opening import open_store
from raydc.study.preflight import ReadyStudy, preflight, with_digests
from raydc.study.recording import Record, Recorder, share
from raydc.study.summary import Summary
from raydc.tracking import study_folder
from raydc.tracking.ledger import Ledger, read_rows

if TYPE_CHECKING:
    from raydc.search.ask_tell import Search

PUBLISHING = "raydc.study.publishing"
"""A module needed at the end; it is imported, which takes a second, while teachers are trained."""
TRACKER_PATIENCE_SECONDS = 60.0
"""How long the end of a run waits for a tracking server that does not answer."""
HASTY_PATIENCE_SECONDS = 5.0
"""The same for a run ended by its user or a full disk; the next run records the rest."""


def run(
    study: StudySpec,
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

    `finish(out)` is called after the last evaluation, before the tracker is closed; it writes the
    report. Raises `InputError`, `StoreError` or `FolderError` before anything is trained; later errors
    are bugs.
    """
    began = time.monotonic()
    if address is not None:
        from raydc.orchestration.cluster import probe

        probe(address)
    study = study.located(tracking_uri, store_uri)
    store = open_store(study.store_uri or study_folder.default_store(out))
    study_folder.prepare(out, study.name)
    with study_folder.locked(out), ThreadPoolExecutor(max_workers=1) as pool:
        ready = preflight(study, store, download)
        resuming = bool(read_rows(out))
        record = Record(ready, out, resuming=resuming, pool=pool)
        pool.submit(import_module, PUBLISHING)
        with Ledger(out) as ledger:
            others = _known_elsewhere(ready, ledger)
            launch = _Launch(ready, ledger, record, others if reuse else {}, out, address, progress, finish)
            summary = launch.go()
    summary.wall_seconds = time.monotonic() - began
    return summary


def _known_elsewhere(ready: ReadyStudy, ledger: Ledger) -> dict[str, Row]:
    """Results of all studies on these data by id, after sharing those of the ledger."""
    known = {row["evaluation_id"]: row for row in ready.store.results(ready.dataset.id)}
    own = [ledger.rows[name] for name in ledger.finished() - known.keys()]
    share(ready.store, ready.dataset.id, [r for r in own if r["reused_from"] is None])
    return known


def open_search(ready: ReadyStudy, out: Path, answers: Answers) -> Search:
    """Create or resume the search of a study in the folder `out`.

    Raises `InputError` if the folder contains another search.
    """
    from raydc.search.ask_tell import Search
    from raydc.search.points import FILE, Points

    study, dataset = ready.study, ready.dataset
    assert study.search is not None
    points = Points(out / FILE, study.name, study.search, history.searched(study, dataset.id))

    def plan_of(evaluations: Sequence[Evaluation]) -> Plan:
        return make_plan(bind(with_digests(evaluations), dataset.facts, study.source), dataset.id)

    return Search(study, points, plan_of, answers)


@dataclass(frozen=True)
class _Launch:
    """One run of a study that has passed its checks, in its folder."""

    ready: ReadyStudy
    ledger: Ledger
    record: Record
    others: Mapping[str, Row]
    """Finished results of other studies that can be reused, by id."""
    out: Path
    address: str | None
    progress: Progress
    finish: Callable[[Path], Any] | None

    def go(self) -> Summary:
        """Run the unfinished evaluations of a grid or a search."""
        counts = self.ready.plan.counted(self.ready.dataset.classes)
        with writing_folder(self.out):
            study_folder.write_plan(self.out, {**counts, "evaluations": self.ready.evaluations})
        return self._grid() if self.ready.study.search is None else self._search()

    def _search(self) -> Summary:
        ready, ledger = self.ready, self.ledger
        earlier = dict(ledger.rows)
        answers = Answers(ledger, self.others, ready.study.name)
        with writing_folder(self.out):
            search = open_search(ready, self.out, answers)
        self._write_study()
        summary = Summary(ready.study.name, self.out, evaluations=0)
        if told := search.told():
            self.progress.note(f"{told} of {search.spec.points} points were told")
        if not search.over():
            self._execute(ready.plan, summary, search)
        self.record.tracker().record(earlier.values())
        evaluations = [p for p in search.evaluations() if p.tested or p.id in ledger.rows]
        finished = {name for name, row in earlier.items() if row["status"] == FINISHED}
        summary.evaluations = len(evaluations)
        trained = [p for p in evaluations if p.id in ledger.rows]
        summary.forwards = forwards(trained, ready.dataset.classes)
        summary.naive_forwards = naive_forwards(trained, ready.dataset.classes)
        summary.before = sum(1 for p in evaluations if p.id in finished)
        summary.taken_over = answers.taken_over
        summary.search = history.history_of(search, ledger)
        with self._dispensable("the search's history"):
            history.write_history(self.out, summary.search)
        self._conclude(evaluations, summary)
        return summary

    def _grid(self) -> Summary:
        ready, ledger = self.ready, self.ledger
        plan, classes = ready.plan, ready.dataset.classes
        self._write_study()
        summary = Summary(ready.study.name, self.out, evaluations=len(plan.evaluations))
        summary.forwards = plan.forwards(classes)
        summary.naive_forwards = plan.naive_forwards(classes)
        summary.before = sum(1 for p in plan.evaluations if p.id in ledger.finished())
        left = plan.without(ledger.finished()).evaluations
        if taken := [reused(self.others[p.id], p, ready.study.name) for p in left if p.id in self.others]:
            ledger.append(taken)
            summary.taken_over = len(taken)
        earlier = list(ledger.rows)
        if summary.before or summary.taken_over:
            self.progress.note(
                f"{summary.before} of {summary.evaluations} evaluations were finished, "
                f"{summary.taken_over} are reused from other studies"
            )
        self._execute(plan.without(ledger.finished()), summary)
        # The tracker skips results that it has, so this completes the record after a kill.
        self.record.tracker().record([ledger.rows[name] for name in earlier])
        self._conclude(plan.evaluations, summary)
        return summary

    def _write_study(self) -> None:
        with writing_folder(self.out):
            write_atomically(self.out / study_folder.STUDY, self.ready.study.to_yaml().encode())

    def _execute(self, left: Plan, summary: Summary, search: Search | None = None) -> None:
        """Run the remaining plan through its stages, and share its results with other studies."""
        recorder = Recorder(self.ledger, self.record, self.ready.store, self.ready.dataset.id)
        if left.evaluations:
            self._run(left, summary, recorder, search)
        recorder.share()

    def _run(self, left: Plan, summary: Summary, recorder: Recorder, search: Search | None) -> None:
        from raydc.orchestration.cluster import connected
        from raydc.orchestration.runner import Runner
        from raydc.orchestration.worker_context import WorkerContext
        from raydc.training.compiling import compiler, no_compiler

        study, dataset, store = self.ready.study, self.ready.dataset, self.ready.store
        runner = Runner(
            left,
            context=WorkerContext(study.dataset, dataset.cache, store.uri),
            facts=dataset.facts,
            store=store,
            resources=study.resources,
            study=study.name,
            progress=self.progress,
            sink=recorder,
            decode=lambda: open_dataset(study.dataset, store),
        )
        previous = signal.signal(signal.SIGTERM, _interrupt)
        try:
            with connected(self.address, study.resources) as capacity:
                signal.signal(signal.SIGTERM, _interrupt)  # Ray has replaced the handler.
                if not capacity.gpus and compiler() is None:
                    self.progress.note(no_compiler())
                if search is None:
                    runner.run(capacity, before_evaluations=self.record.tracker)
                else:
                    runner.search(search, capacity, before_evaluations=self.record.tracker)
        except KeyboardInterrupt:
            summary.interrupted = True
        except (StoreError, FolderError) as error:
            summary.stopped = str(error)
        except Exception as error:
            # Ray and Tune write their own files there.
            if (reason := fault(error, Path(tempfile.gettempdir()))) is None:
                raise
            summary.stopped = (
                f"the folder {tempfile.gettempdir()!r} cannot be written ({reason}); make space there"
            )
        finally:
            signal.signal(signal.SIGTERM, previous)
        stages = runner.stages
        summary.stage_seconds = stages.seconds
        summary.student_seconds = stages.student_seconds
        summary.workers = stages.workers
        summary.efficiency = stages.efficiency
        summary.forwarded = stages.images_forwarded

    def _conclude(self, evaluations: Sequence[Planned], summary: Summary) -> None:
        """Count the results, write the table and the report, and close the tracker."""
        from raydc.study.publishing import publish_origin, publish_results

        ledger, tracker, out = self.ledger, self.record.tracker(), self.out
        status = {p.id: ledger.rows.get(p.id, {}).get("status") for p in evaluations}
        summary.ids = frozenset(status)
        summary.finished = sum(1 for s in status.values() if s == FINISHED)
        summary.failed = sum(1 for s in status.values() if s == FAILED)
        if not summary.interrupted and summary.stopped is None:
            # Tune has ended, so an evaluation without a row was not run.
            summary.failed += sum(1 for s in status.values() if s is None)
        summary.run_now = summary.finished - summary.before - summary.taken_over
        self._write_table()
        if self.finish is not None and summary.finished and not summary.interrupted:
            with self._dispensable("the report"):
                self.finish(out)
        if summary.efficiency:
            tracker.describe({"parallel_efficiency": summary.efficiency})
        with self._dispensable("the study's record"):
            publish_origin(tracker, self.ready.dataset, self.ready.plan, self.ready.store)
            publish_results(tracker, list(ledger.rows.values()), out)
        over = STOPPED if summary.interrupted else FAILED if summary.exit_code == 3 else FINISHED
        hasty = summary.interrupted or summary.stopped is not None
        summary.tracker = self.record.label
        summary.behind = tracker.close(over, HASTY_PATIENCE_SECONDS if hasty else TRACKER_PATIENCE_SECONDS)
        self._write_table()

    def _write_table(self) -> None:
        with self._dispensable("the results table"), writing_folder(self.out):
            study_folder.write_results(self.out, study_folder.with_run_ids(self.out, self.ledger.rows))

    @contextmanager
    def _dispensable(self, what: str) -> Iterator[None]:
        """Report a write error instead of raising it: the output is derived from the ledger, so the next run
        can make it."""
        try:
            yield
        except (OSError, InputError) as error:
            self.progress.note(f"{what} could not be written: {error}")


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt
