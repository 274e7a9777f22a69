"""The student worker: a reusable Tune trial that runs bundles of evaluations.

A bundle is sent as text in the trial's config, so that Tune's own records stay small. A step runs
evaluations until REPORT_SECONDS have passed and reports their rows; the driver writes them to the
ledger before it asks for more. A bundle may also be work that evaluations of a search wait for, which has no
time limit; its steps are reported as they are made.
"""

from __future__ import annotations

import base64
import json
import logging
import pickle
import time
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

from ray import tune

from raydc.errors import RaydcError
from raydc.orchestration.teacher_actor import TeacherPool
from raydc.orchestration.watchdog import Watchdog
from raydc.orchestration.worker_context import WorkerContext
from raydc.spec.result import Row, failed
from raydc.worker.evaluate import error_text, one_line
from raydc.worker.making import make
from raydc.worker.packs import Attempt, attempt_all
from raydc.worker.work import Work
from raydc.worker.workbench import Pruner, Workbench

logger = logging.getLogger(__name__)

REPORT_SECONDS = 0.5
"""A step ends when the first evaluation ends after this time."""


def pack(content: Any) -> str:
    """Encode evaluations or work as text."""
    return base64.b64encode(zlib.compress(pickle.dumps(content), 1)).decode()


def unpack(text: str) -> Any:
    """Decode text from `pack`; only for text made by raydc's own driver, because it unpickles."""
    return pickle.loads(zlib.decompress(base64.b64decode(text)))


def pack_bundle(bundle: Sequence[Attempt]) -> str:
    """Encode evaluations, each with the number of this attempt, as text."""
    return pack(list(bundle))


def unpack_bundle(text: str) -> list[Attempt]:
    """The evaluations of `pack_bundle`."""
    bundle: list[Attempt] = unpack(text)
    return bundle


class _Making:
    """Makes work in a thread, while the worker reports its steps."""

    def __init__(self, works: Sequence[Work], bench: Callable[[], Workbench]) -> None:
        self._events: SimpleQueue[tuple[str, str | None] | Exception | None] = SimpleQueue()
        self._steps: tuple[str, int, int] | None = None
        self._ended = False
        self._thread = Thread(target=self._run, args=(works, bench), daemon=True)
        self._thread.start()

    def _run(self, works: Sequence[Work], bench: Callable[[], Workbench]) -> None:
        try:
            for work in works:
                error: str | None = None
                try:
                    make(work, bench(), partial(self._tell, work.id))
                except Exception as problem:  # only its evaluations fail
                    error = error_text(problem)
                self._events.put((work.id, error))
            self._events.put(None)
        except BaseException as problem:  # such as SystemExit of a method: the worker ends with it
            self._events.put(RuntimeError(f"{type(problem).__name__}: {problem}"))

    def _tell(self, name: str, done: int, total: int) -> None:
        self._steps = name, done, total

    def report(self) -> dict[str, Any]:
        """Wait for REPORT_SECONDS and report the work that has ended and the steps of the current piece."""
        made: list[tuple[str, str | None]] = []
        until = time.monotonic() + REPORT_SECONDS
        while not self._ended and (left := until - time.monotonic()) > 0:
            try:
                event = self._events.get(timeout=left)
            except Empty:
                break
            if isinstance(event, Exception):
                raise event
            if event is None:
                self._ended = True
            else:
                made.append(event)
        return {"rows": "[]", "made": json.dumps(made), "work_steps": self._steps, "done": self._ended}


class StudentWorker(tune.Trainable):
    """Runs bundles of evaluations on this process's workbench."""

    def setup(
        self,
        config: dict[str, Any],
        context: WorkerContext | None = None,
        teachers: TeacherPool | None = None,
        pruner: Pruner | None = None,
        study: str = "",
        dataset_id: str = "",
        timeout_seconds: float | None = None,
    ) -> None:
        assert context is not None
        self._watchdog = Watchdog(timeout_seconds)
        self._study = study
        self._dataset_id = dataset_id
        self._context = context
        self._teachers = teachers
        self._pruner = pruner
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._left = 1  # a bundle that cannot be read is unfinished
        self._packed = False
        self._error: Exception | None = None
        self._told = False
        self._making: _Making | None = None
        try:
            if "works" in new_config:
                self._making = _Making(unpack(new_config["works"]), self._bench)
            else:
                self._begin(unpack_bundle(new_config["bundle"]), new_config["to_come"])
        except Exception as error:
            self._break(error)
        return True

    def _begin(self, bundle: Sequence[Attempt], to_come: int) -> None:
        self._left = len(bundle)
        try:
            bench = self._bench()
        except RaydcError as error:  # the store does not answer, or the images are missing
            self._rows = iter([self._failed(bundle, error)])
            return
        if self._pruner is not None:
            bench.pruner = self._pruner
        self._packed = bench.device.type == "cuda"
        self._rows = attempt_all(bundle, bench, study=self._study, to_come=to_come)

    def _bench(self) -> Workbench:
        return self._context.bench(self._teachers)

    def _break(self, error: Exception) -> None:
        """End this worker after an unexpected error, because another process or machine may succeed."""
        logger.error("a worker broke", exc_info=error)
        self._error = error

    def _failed(self, bundle: Sequence[Attempt], error: Exception) -> list[Row]:
        text = error_text(error)
        return [
            failed(planned, study=self._study, dataset_id=self._dataset_id, attempts=attempts, error=text)
            for planned, attempts in bundle
        ]

    def step(self) -> dict[str, Any]:
        rows: list[Row] = []
        if self._making is not None and self._error is None:
            try:
                return self._making.report()
            except Exception as error:
                self._break(error)
        elif self._error is None:
            try:
                self._run(rows)
            except Exception as error:  # errors of a training are in its row
                self._break(error)
        self._left -= len(rows)
        result: dict[str, Any] = {"rows": json.dumps(rows, allow_nan=False), "done": not self._left}
        if self._error is not None:
            # Tune does not report why a worker died, so the worker reports it first.
            if self._told:
                raise self._error
            self._told = True
            result["broken"] = one_line(self._error)
        return result

    def _run(self, rows: list[Row]) -> None:
        """Add the rows of this step to `rows`."""
        start = time.monotonic()
        while not rows or time.monotonic() - start < REPORT_SECONDS:
            with self._watchdog.for_(self._left if self._packed else 1):
                rows += next(self._rows)
            if len(rows) == self._left:
                break

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Do nothing: evaluations have no intermediate state."""
