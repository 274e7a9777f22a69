"""Fixtures: digits in a store of the session, and studies made of a few lines."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from benchmarks.mlflow_server import Server
from raydc.data.dataset import Dataset, open_dataset
from raydc.spec.evaluation import DatasetSpec
from raydc.spec.facts import bind
from raydc.spec.plan import Plan, make_plan
from raydc.store.local import LocalStore
from raydc.training.compiling import compiler
from raydc.worker.making import make_everything
from raydc.worker.workbench import Workbench

if TYPE_CHECKING:
    from raydc.spec.study import StudySpec

for variable in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI", "RAYDC_STORE", "FORCE_COLOR"):
    os.environ.pop(variable, None)  # of whoever runs the tests
os.environ |= {"no_proxy": "*", "NO_PROXY": "*"}  # all servers are on this machine

DIGITS = DatasetSpec("digits", "named", val_fraction=297 / 1297)
SMALL_STUDY = """
name: small
dataset: digits
teacher: {arch: convnet-d2-w8, epochs: 2, lr: 0.1, momentum: 0.9, batch_size: 64, augment: none}
base:
  images: {method: random, ipc: 2}
  labels: {kind: hard}
  student: {arch: convnet-d2-w8}
  train: {recipe: label-worth, steps: 5, augment: none, lr: 0.05}
"""


def _tmpfs(at: Path, size: str) -> bool:
    """Mount an empty file system in memory of so many bytes (such as 2m); whether it could be done."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "raydc-test", str(at)]
    return bool(shutil.which("mount")) and subprocess.run(mount, capture_output=True).returncode == 0


def _unmount(at: Path) -> None:
    subprocess.run(["umount", "--lazy", str(at)], check=True)


def _mounts() -> bool:
    """Whether this process may mount."""
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder)
        able = _tmpfs(at, "64k")
        if able:
            _unmount(at)
        return able


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """`small_disk("2m")`: a folder that is a disk of its own, of that size (marker tmpfs)."""
    mounted: list[Path] = []

    def make(size: str) -> Path:
        at = tmp_path / f"disk{len(mounted)}"
        at.mkdir()
        assert _tmpfs(at, size)
        mounted.append(at)
        return at

    yield make
    for at in mounted:
        _unmount(at)


LACKING: dict[str, tuple[Callable[[], object], str]] = {
    "gpu": (torch.cuda.is_available, "needs a CUDA device"),
    "compiler": (compiler, "needs a C++ compiler and Python's headers"),
    "browser": (lambda: shutil.which("chromium"), "needs chromium"),
    "tmpfs": (_mounts, "needs to mount a tmpfs"),
}
"""Markers of tests that ask for what a machine may lack: whether it is here, and what to say if not."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of what this machine lacks are skipped, here and nowhere else, with the reason."""
    for marker, (here, reason) in LACKING.items():
        marked = [item for item in items if item.get_closest_marker(marker)]
        if marked and not here():
            for item in marked:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Results are bit-equal for one number of threads; students have one."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    return LocalStore(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="session")
def digits(store: LocalStore) -> Dataset:
    return open_dataset(DIGITS, store)


@pytest.fixture
def bench(digits: Dataset, store: LocalStore) -> Workbench:
    return Workbench(digits, store, torch.device("cpu"))


@pytest.fixture
def small() -> Callable[..., StudySpec]:
    """`small("base.images.ipc=1", ...)`: the small study with some keys changed."""

    # Tests of the core alone run where pydantic is not installed.
    from raydc.spec.study import parse_study

    def make(*settings: str, extra: str = "") -> StudySpec:
        return parse_study(SMALL_STUDY + extra, "small.yaml", settings=settings)

    return make


@pytest.fixture
def planned(digits: Dataset) -> Callable[[StudySpec], Plan]:
    """The plan of a study on digits."""

    def make(study: StudySpec) -> Plan:
        return make_plan(bind(study.evaluations(), digits.facts, study.source), digits.id)

    return make


@pytest.fixture
def study_file(tmp_path: Path) -> Callable[[str], Path]:
    """Write a study file and return its path."""

    def write(text: str) -> Path:
        path = tmp_path / "study.yaml"
        path.write_text(text)
        return path

    return write


@pytest.fixture
def ready(bench: Workbench, planned: Callable[[StudySpec], Plan]) -> Callable[[StudySpec], Plan]:
    """The plan of a study, with everything made that its evaluations wait for."""

    def make(study: StudySpec) -> Plan:
        plan = planned(study)
        make_everything(plan, bench)
        return plan

    return make


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """An MLflow server that answers."""
    made = Server(tmp_path / "server")
    try:
        made.start()
        made.wait()
        yield made
    finally:
        made.stop()
