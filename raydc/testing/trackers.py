"""The contract of a tracker, as tests for pytest.

from raydc.testing.trackers import TrackerContract

class TestJsonLines(TrackerContract):
    def create(self, context):
        return JsonLines(context)

    def recorded(self, context):
        rows = map(json.loads, (context.folder / "record.jsonl").read_text().splitlines())
        return [(row["evaluation_id"], row["status"]) for row in rows]
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from raydc.spec.result import FAILED, FINISHED, STOPPED, Row
from raydc.tracking.tracker import PLANNED, TeacherCurve, Tracker, TrackerContext, UsedDataset
from raydc.tracking.trackers import METHODS

PATIENCE_SECONDS = 60.0
MANY = 2000
"""Number of rows of one call of `record`."""
AT_ONCE_SECONDS = 2.0
"""Time limit of this call."""


def example_row(name: str, status: str = FINISHED, **values: Any) -> Row:
    """A row of results with the columns that trackers need."""
    return {
        "evaluation_id": name,
        "study": "contract",
        "seed": 0,
        "status": status,
        "images.method": "random",
        "images.ipc": 10,
        "labels.kind": "hard",
        "test_acc": None if status == FAILED else 0.5,
        "test_acc_by_class": None if status == FAILED else [0.25, None, 0.75],
        "steps": 300,
        "device": "cpu",
        "attempts": 1,
        "reused_from": None,
        "started_at": 1_700_000_000.0,
        "finished_at": 1_700_000_001.5,
        "protocol_version": 1,
        "error": "EvaluationError: the loss is nan" if status == FAILED else None,
        **values,
    }


class TrackerContract(ABC):
    """The tests of a tracker; a subclass implements `create` and `recorded`."""

    records = True
    """Whether the tracker records anything."""

    @abstractmethod
    def create(self, context: TrackerContext) -> Tracker:
        """A new tracker, not started."""

    @abstractmethod
    def recorded(self, context: TrackerContext) -> list[tuple[str, str]]:
        """(evaluation id, status) of all recorded rows, in any order, but the newest of an id last."""

    def context(self, folder: Path, *, resuming: bool = False) -> TrackerContext:
        """The context of the tracker under test; a subclass may add a URI or options."""
        return TrackerContext("contract", folder, varying=("images.ipc",), resuming=resuming)

    def started(self, folder: Path, *, resuming: bool = False) -> Tracker:
        """A started tracker of a study in `folder`."""
        tracker = self.create(self.context(folder, resuming=resuming))
        tracker.start()
        return tracker

    def statuses(self, folder: Path) -> dict[str, str]:
        """The status of each recorded evaluation."""
        return dict(self.recorded(self.context(folder)))

    def expected(self, statuses: dict[str, str]) -> dict[str, str]:
        """`statuses`, or an empty dict for a tracker that records nothing."""
        return statuses if self.records else {}

    def test_it_has_every_method(self, tmp_path: Path) -> None:
        tracker = self.create(self.context(tmp_path))
        assert [name for name in METHODS if not callable(getattr(tracker, name, None))] == []

    def test_rows_are_recorded_with_their_status(self, tmp_path: Path) -> None:
        tracker = self.started(tmp_path)
        tracker.record([example_row("a"), example_row("b", FAILED)])
        tracker.record(iter([example_row("c", STOPPED)]))
        assert tracker.close(FAILED, PATIENCE_SECONDS) == 0
        assert self.statuses(tmp_path) == self.expected({"a": FINISHED, "b": FAILED, "c": STOPPED})

    def test_repeated_rows_are_recorded_once(self, tmp_path: Path) -> None:
        rows = [example_row("a"), example_row("b")]
        for resuming in (False, True):
            tracker = self.started(tmp_path, resuming=resuming)
            tracker.record(rows)
            tracker.record(rows)
            assert tracker.close(FINISHED, PATIENCE_SECONDS) == 0
        names = sorted(name for name, _ in self.recorded(self.context(tmp_path)))
        assert names == sorted(self.expected({"a": FINISHED, "b": FINISHED}))

    def test_a_failed_evaluation_that_finishes_later_is_finished(self, tmp_path: Path) -> None:
        for resuming, row in ((False, example_row("a", FAILED)), (True, example_row("a"))):
            tracker = self.started(tmp_path, resuming=resuming)
            tracker.record([row])
            assert tracker.close(row["status"], PATIENCE_SECONDS) == 0
        assert self.statuses(tmp_path) == self.expected({"a": FINISHED})

    def test_rows_of_another_study_are_not_missing(self, tmp_path: Path) -> None:
        tracker = self.started(tmp_path)
        tracker.record([example_row("a", reused_from="another")])
        assert tracker.close(FINISHED, PATIENCE_SECONDS) == 0

    def test_recording_returns_at_once(self, tmp_path: Path) -> None:
        tracker = self.started(tmp_path)
        began = time.monotonic()
        tracker.record(example_row(f"e{number}") for number in range(MANY))
        took = time.monotonic() - began
        tracker.close(STOPPED, 0.1)
        assert took < AT_ONCE_SECONDS

    def test_a_resumed_study_can_be_described_again(self, tmp_path: Path) -> None:
        (tmp_path / "figures").mkdir()
        (tmp_path / "figures" / "accuracy.png").write_bytes(b"picture")
        (tmp_path / "plan.json").write_text("{}")
        curve = TeacherCurve(
            "t", "teacher", {"teacher.arch": "x"}, ((1, "val_acc", 0.5), (2, "val_acc", 0.6))
        )
        for resuming, status in ((False, STOPPED), (True, FINISHED)):
            tracker = self.started(tmp_path, resuming=resuming)
            tracker.describe({PLANNED: 2})
            tracker.used(UsedDataset("digits", "0123abcd", "digits", {"train": 1000, "classes": 10}))
            tracker.teachers(iter([curve]))
            tracker.attach_text("torch==2\n", "environment.txt")
            tracker.describe({"finished": 2, "failed": 0}, "# Results\n\nTwo *evaluations*.")
            tracker.attach(tmp_path / name for name in ("plan.json", "figures", "missing.html"))
            assert tracker.close(status, PATIENCE_SECONDS) == 0

    def test_files_of_the_study_are_not_modified(self, tmp_path: Path) -> None:
        files = {"ledger.jsonl": b"results", "study.yaml": b"name: contract\n"}
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)
        tracker = self.started(tmp_path)
        tracker.record([example_row("a")])
        tracker.attach([tmp_path / "study.yaml"])
        assert tracker.close(FINISHED, PATIENCE_SECONDS) == 0
        assert {name: (tmp_path / name).read_bytes() for name in files} == files
