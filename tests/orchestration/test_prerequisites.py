"""The loop on Ray: any kind of work, gone on with where a worker died, and why other work cannot be made."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from raydc.data.dataset import Dataset
from raydc.errors import ArtifactError, EvaluationError
from raydc.orchestration.cluster import connected
from raydc.orchestration.prerequisites import Prerequisites
from raydc.orchestration.progress import Silent
from raydc.orchestration.worker_context import WorkerContext
from raydc.spec.facts import DataFacts
from raydc.spec.plan import LabelPass
from raydc.spec.result import Row
from raydc.spec.study_file import Resources
from raydc.store.artifact import Store
from raydc.store.local import LocalStore
from raydc.store.saved import OnProgress, Saved
from raydc.worker.work import Cost, Kind, Measure, Request, Work
from raydc.worker.workbench import Workbench

COUNTED = Kind("counts", "counts", "numbers")


@dataclass(frozen=True)
class Counting:
    """A kind of work that raydc does not have: it counts to five, and notes each number in a file."""

    id: str
    notes: Path
    trains: bool = True
    dies_at: int | None = None
    error: Exception | None = None
    needs: tuple[str, ...] = ()

    kind = COUNTED
    title = "its count"
    group = ""
    request = Request()

    @property
    def label_pass(self) -> LabelPass | None:
        return None

    def cost(self, facts: DataFacts) -> Cost:
        return Cost("numbers", 5, "counting")

    @staticmethod
    def measured(row: Row, facts: DataFacts) -> Measure | None:
        return None

    def is_made(self, store: Store) -> bool:
        return store.has("count", self.id)

    def make(self, bench: Workbench, saved: Saved, progress: OnProgress) -> None:
        if self.error is not None:
            raise self.error
        state = saved.newest()
        for number in range(0 if state is None else state.step, 5):
            noted = self.notes.read_text().split() if self.notes.exists() else []
            if number == self.dies_at and f"{self.id}:died" not in noted:
                self._note("died")
                os.kill(os.getpid(), signal.SIGKILL)
            self._note(str(number))
            saved.save(number + 1, {"number": torch.tensor(number)})
            progress(number + 1, 5)
        with bench.store.draft("count") as draft:
            draft.path("x").write_text("counted")
            draft.commit(self.id)

    def _note(self, text: str) -> None:
        with self.notes.open("a") as file:
            file.write(f"{self.id}:{text}\n")


class Watcher(Silent):
    """Keeps the stages and the last progress that it was told."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, int, str]] = []
        self.done: list[float] = []
        self.notes: list[str] = []

    def stage(self, name: str, total: int, unit: str) -> None:
        self.stages.append((name, total, unit))

    def advance(
        self, done: float, detail: str = "", *, total: int | None = None, per_minute: float | None = None
    ) -> None:
        self.done.append(done)

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.mark.ray
@pytest.mark.slow
def test_a_new_kind_of_work_is_made_resumed_and_its_failures_are_told(
    tmp_path: Path, digits: Dataset, store: LocalStore, context: WorkerContext
) -> None:
    notes, watcher, resources = tmp_path / "notes", Watcher(), Resources(workers=2)
    refused = EvaluationError("it does not count")
    gone = ArtifactError("numbers/a is not in the store")
    works: list[Work] = [
        Counting("dying", notes, dies_at=3),
        Counting("quick", notes, trains=False),
        Counting("refused", notes, trains=False, error=refused),
        Counting("gone", notes, error=gone),
    ]
    with connected(None, resources) as capacity:
        loop = Prerequisites(
            capacity, context=context, facts=digits.facts, resources=resources, progress=watcher
        )
        loop.make(works, None)
        loop.make([Counting("after", notes, needs=("dying", "gone"))], None)
    assert watcher.stages == [("counts", 5 + 1 + 1 + 5, "numbers")]
    assert watcher.done == sorted(watcher.done)
    assert watcher.done[-1] == 12
    counted = [line for line in notes.read_text().split() if line.startswith("dying")]
    assert counted == [f"dying:{text}" for text in ("0", "1", "2", "died", "3", "4")]
    assert [work.is_made(store) for work in works] == [True, True, False, False]
    assert loop.broken == {
        "refused": "its count: it does not count",
        "gone": "its count: numbers/a is not in the store",
        "after": "its count: numbers/a is not in the store",
    }
    assert loop.lost == {"gone", "after"}
    assert watcher.notes == ["its count failed: numbers/a is not in the store"]
    assert not [name for name in store.names("progress") if name.startswith("dying")]
