"""A run whose disks fail stops in one sentence, keeps what it has, and goes on later."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from raydc.errors import FolderError, StoreError
from raydc.orchestration import cluster
from raydc.orchestration.cluster import Capacity
from raydc.orchestration.progress import Silent
from raydc.orchestration.runner import Runner
from raydc.spec.study import StudySpec
from raydc.store.local import LocalStore
from raydc.study import launch
from raydc.tracking.ledger import read_rows
from raydc.tracking.mlflow_writer import RowWriter
from raydc.training.compiling import no_compiler

pytestmark = pytest.mark.mlflow


class Notes(Silent):
    """Progress that keeps what it was told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def no_space(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def run(
    small: Callable[..., StudySpec],
    tmp_path: Path,
    store: LocalStore,
    mlflow_file: Callable[[Path], str],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., tuple[launch.Summary, list[str]]]:
    """A run on a cluster that raises an error when it is asked for."""

    def go(error: BaseException | None = None, **options: Any) -> tuple[launch.Summary, list[str]]:
        @contextmanager
        def connected(*_: Any) -> Any:
            raise error or KeyboardInterrupt
            yield

        monkeypatch.setattr(cluster, "connected", connected)
        notes = Notes()
        options = {"tracking_uri": mlflow_file(tmp_path), "store_uri": store.uri, **options}
        summary = launch.run(small(), tmp_path / "out", progress=notes, **options)
        return summary, notes.notes

    return go


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (StoreError("the store is full"), "the store is full"),
        (FolderError("the folder is full"), "the folder is full"),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            "cannot be written (No space left on device); make",
        ),
        # As Tune tells what went wrong inside it.
        (
            RuntimeError("Traceback ... OSError: [Errno 28] No space left on device"),
            "cannot be written (No space",
        ),
    ],
)
def test_a_run_that_cannot_go_on_says_why(run: Callable[..., Any], error: Exception, said: str) -> None:
    summary, _ = run(error)
    assert said in summary.stopped
    assert (summary.exit_code, summary.failed, summary.interrupted) == (3, 0, False)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), FolderError("full")])
def test_who_ends_a_run_early_does_not_wait_long_for_its_record(
    run: Callable[..., Any], error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    patience: list[float] = []
    monkeypatch.setattr(RowWriter, "close", lambda _, seconds: patience.append(seconds) or 0)
    run(error)
    assert patience == [launch.HASTY_PATIENCE_SECONDS]
    assert launch.HASTY_PATIENCE_SECONDS < launch.TRACKER_PATIENCE_SECONDS


@pytest.mark.command  # the compiler that does not work
@pytest.mark.parametrize(("gpus", "said"), [(0.0, True), (1.0, False)])
def test_a_run_says_that_its_students_run_eagerly_for_want_of_a_compiler(
    small: Callable[..., StudySpec],
    tmp_path: Path,
    store: LocalStore,
    monkeypatch: pytest.MonkeyPatch,
    gpus: float,
    said: bool,
) -> None:
    @contextmanager
    def connected(*_: Any) -> Any:
        yield Capacity(cpus=2, node_cpus=2, gpus=gpus, workers=2)

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cluster, "connected", connected)
    monkeypatch.setattr(Runner, "run", interrupted)
    monkeypatch.setenv("CXX", "false")
    notes = Notes()
    launch.run(small(), tmp_path / "out", store_uri=store.uri, progress=notes)
    assert (no_compiler() in notes.notes) == said
    assert "false does not work" in no_compiler()


def test_a_bug_is_no_full_disk(run: Callable[..., Any]) -> None:
    with pytest.raises(ZeroDivisionError):
        run(ZeroDivisionError())


def test_a_folder_without_space_is_refused_before_anything_is_trained(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch.study_folder, "write_plan", no_space)
    with pytest.raises(
        FolderError, match=r"'.*out' cannot be written \(No space left on device\); make space"
    ):
        run()


def test_what_is_made_of_the_results_may_lack_space(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch.study_folder, "write_results", no_space)
    summary, notes = run(StoreError("the store is full"))
    assert summary.exit_code == 3
    assert any("the results table could not be written: the study's folder" in note for note in notes)


@pytest.mark.slow
def test_a_search_gets_back_what_it_has_lost(
    small: Callable[..., StudySpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray_cluster: object
) -> None:
    searched = """
search:
  optuna:
    {trials: 2, metric: val_acc, mode: max, sampler: random, space: {labels.temperature: {uniform: [1, 4]}}}
"""
    study = small("base.labels={kind: soft}", "resources={workers: 1}", extra=searched)
    real = Runner._points

    def lose_the_teacher(self: Runner, *arguments: Any) -> None:
        # It is not in its actor's memory yet, since no label was asked for.
        shutil.rmtree(tmp_path / "store" / "checkpoint")
        real(self, *arguments)

    monkeypatch.setattr(Runner, "_points", lose_the_teacher)
    notes = Notes()
    store = str(tmp_path / "store")
    summary = launch.run(study, tmp_path / "out", store_uri=store, progress=notes)
    assert (summary.exit_code, summary.failed) == (0, 0)
    rows = read_rows(tmp_path / "out").values()
    assert {row["status"] for row in rows} == {"finished"}
    assert max(row["attempts"] for row in rows) == 2
    assert any("rebuilding a missing or damaged artifact" in note for note in notes.notes)
