"""Fixtures: digits in a store of the session, and studies made of a few lines.

What takes long to import (torch, Ray, MLflow, pandas) is imported by the fixture that needs it, so that tests
of plain text take no longer than their own work.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest

from raydc.spec.evaluation import DatasetSpec
from tests.shell import Shell

if TYPE_CHECKING:
    from benchmarks.mlflow_server import Server
    from raydc.data.dataset import Dataset
    from raydc.orchestration.cluster import Capacity
    from raydc.spec.plan import Plan
    from raydc.spec.study import StudySpec
    from raydc.spec.study_file import Resources
    from raydc.store.local import LocalStore
    from raydc.worker.workbench import Workbench

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


# --- what a machine may lack ----------------------------------------------------------------------


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


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _has_compiler() -> bool:
    from raydc.training.compiling import compiler

    return compiler() is not None


LACKING: dict[str, tuple[Callable[[], object], str]] = {
    "gpu": (_has_gpu, "needs a CUDA device"),
    "compiler": (_has_compiler, "needs a C++ compiler and Python's headers"),
    "browser": (lambda: shutil.which("chromium"), "needs chromium"),
    "tmpfs": (_mounts, "needs to mount a tmpfs"),
}
"""Markers of tests that ask for what a machine may lack: whether it is here, and what to say if not."""

STARTING: dict[str, tuple[str, ...]] = {
    "small_disk": ("tmpfs",),
    "server": ("mlflow", "server"),
    "mlflow_file": ("mlflow",),
    "ray_cluster": ("ray",),
    "own_ray": ("ray",),
    "finished": ("command", "ray", "slow"),
}
"""Fixtures that start a process: the markers of the tests that use them."""
SHARED = ("ray_cluster", "finished")
"""Fixtures of a session that take seconds: the tests that use one run in one process of pytest-xdist."""


@pytest.hookimpl(tryfirst=True)  # before -m and pytest-xdist look at the markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by the fixtures that they use; skip, here and nowhere else, what this machine lacks.

    Long tests come first, so that processes which share the tests end together.
    """
    for item in items:
        names = getattr(item, "fixturenames", ())
        for name in names:
            for marker in STARTING.get(name, ()):
                item.add_marker(marker)
        alone = item.nodeid if item.get_closest_marker("slow") and "/commands/" in item.nodeid else None
        group = next((name for name in SHARED if name in names), alone or item.nodeid.partition("::")[0])
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=_order)
    for marker, (here, reason) in LACKING.items():
        marked = [item for item in items if item.get_closest_marker(marker)]
        if marked and not here():
            for item in marked:
                item.add_marker(pytest.mark.skip(reason=reason))


def _order(item: pytest.Item) -> int:
    """What shares Ray comes first, in one piece; then what takes long."""
    names = getattr(item, "fixturenames", ())
    if any(name in names for name in SHARED):
        return 0
    return 1 if item.get_closest_marker("ray") or item.get_closest_marker("slow") else 2


# --- what a test may start ------------------------------------------------------------------------

ANY_PROCESS = {"command", "ray", "server", "compiler", "browser", "tmpfs"}
"""Markers of tests that may start processes."""


class Guard:
    """Fails a test that starts a process, Ray or an MLflow record without the marker that says so.

    `make quick` leaves such tests out by their markers, so markers have to be right.
    """

    def __init__(self) -> None:
        self.markers: set[str] | None = None
        """Of the test that runs; None between tests."""
        self.broken: list[str] = []

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.markers is None or event not in ("subprocess.Popen", "os.system", "sqlite3.connect"):
            return
        if event == "sqlite3.connect":
            if "mlflow.db" in str(arguments[0]):
                self._need({"mlflow", "command", "ray"}, "an MLflow record", "mlflow")
            return
        command = " ".join(map(str, arguments[1])) if event == "subprocess.Popen" else str(arguments[0])
        if "ray/core/src/ray" in command:
            self._need({"ray"}, "Ray", "ray")
        elif " mlflow server " in command:
            self._need({"server"}, "an MLflow server", "server")
        else:
            self._need(ANY_PROCESS, f"a process ({command[:80]})", "command")

    def _need(self, allowed: set[str], what: str, marker: str) -> None:
        if self.markers is not None and not self.markers & allowed:
            self.broken.append(f"the test starts {what}, but has no marker {marker!r}")
            raise AssertionError(self.broken[-1])


guard = Guard()
sys.addaudithook(guard)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    guard.markers = {marker.name for marker in item.iter_markers()}
    guard.broken = []
    try:
        return (yield)
    finally:
        guard.markers = None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Generator[None, None, None]:
    yield
    if guard.broken:  # also where the code under test caught the error
        pytest.fail("\n".join(sorted(set(guard.broken))), pytrace=False)


# --- fixtures -------------------------------------------------------------------------------------


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


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Results are bit-equal for one number of threads; students have one."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


@pytest.fixture
def own_catalog(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Plugins that a test loads are taken out of the catalogue at its end."""
    from raydc.spec import catalog, plugins

    monkeypatch.setenv(plugins.VARIABLE, "")
    before, loaded = {registry.kind: registry.names() for registry in catalog.REGISTRIES}, set(sys.modules)
    yield
    for registry in catalog.REGISTRIES:
        for name in set(registry.names()) - set(before[registry.kind]):
            registry.discard(name)
    for name in set(sys.modules) - loaded:
        if str(getattr(sys.modules[name], "__file__", "")).endswith(("_plugin.py", "my_method.py")):
            del sys.modules[name]
    plugins.forget()


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    from raydc.store.local import LocalStore

    return LocalStore(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="session")
def digits(store: LocalStore) -> Dataset:
    import torch

    from raydc.data.dataset import open_dataset

    torch.set_num_threads(1)  # this may be the import of torch, after _one_thread
    return open_dataset(DIGITS, store)


@pytest.fixture
def bench(digits: Dataset, store: LocalStore) -> Workbench:
    import torch

    from raydc.worker.workbench import Workbench

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
    from raydc.spec.facts import bind
    from raydc.spec.plan import make_plan

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
    from raydc.worker.making import make_everything

    def make(study: StudySpec) -> Plan:
        plan = planned(study)
        make_everything(plan, bench)
        return plan

    return make


@pytest.fixture
def unlabelled(planned: Callable[[StudySpec], Plan], bench: Workbench) -> Callable[[StudySpec], Plan]:
    """The plan of a study, with everything made but its labels."""
    from raydc.worker.making import make as make_work
    from raydc.worker.planned_work import work_of

    def make(study: StudySpec) -> Plan:
        made = planned(study)
        for work in work_of(made, bench.dataset.classes):
            if work.label_pass is None:
                make_work(work, bench)
        for name in bench.store.names("logits"):
            bench.store.remove("logits", name)
        return made

    return make


@pytest.fixture(scope="session")
def make_shell(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Shell]:
    return lambda: Shell(tmp_path_factory.mktemp("shell"))


@pytest.fixture(scope="session")
def finished(make_shell: Callable[[], Shell]) -> Shell:
    """A shell in which the tiny study has run into runs/tiny, in a process of its own."""
    shell = make_shell()
    shell.said = shell.process("run", "tiny.yaml").stdout  # type: ignore[attr-defined]
    return shell


class SharedRay:
    """One cluster of two cores in this process, for all tests that do not test how Ray begins and ends."""

    CPUS = 2

    def __init__(self) -> None:
        self._running = ExitStack()
        self._joined = False

    def join(self) -> None:
        """Start it unless it runs."""
        if not self._joined:
            from raydc.orchestration import cluster
            from raydc.spec.study_file import Resources

            with patch.object(cluster, "local_cpus", lambda: self.CPUS):
                self._running.enter_context(cluster.connected(None, Resources(workers=self.CPUS)))
            self._joined = True

    def leave(self) -> None:
        """End it if it runs."""
        self._running.close()
        self._joined = False


@pytest.fixture(scope="session")
def _shared_ray() -> Iterator[SharedRay]:
    ray = SharedRay()
    yield ray
    ray.leave()


@pytest.fixture
def ray_cluster(_shared_ray: SharedRay, monkeypatch: pytest.MonkeyPatch) -> Callable[[Resources], Capacity]:
    """`ray_cluster(resources)`: what the shared cluster offers; raydc's runs in this process use it, too."""
    from raydc.orchestration import cluster

    @contextmanager
    def joined(address: str | None, resources: Resources) -> Iterator[Capacity]:
        assert address is None
        yield cluster.capacity(resources)

    _shared_ray.join()
    monkeypatch.setattr(cluster, "connected", joined)
    return cluster.capacity


@pytest.fixture(scope="module")
def own_ray(_shared_ray: SharedRay) -> None:
    """Room in this process for a cluster that the tests of a module start themselves."""
    _shared_ray.leave()


@pytest.fixture(scope="session")
def _mlflow_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new database of MLflow, whose making takes a second."""
    from raydc.tracking.mlflow_client import client_of, default_uri

    folder = tmp_path_factory.mktemp("mlflow")
    client_of(default_uri(folder))
    return folder / "mlflow.db"


@pytest.fixture
def mlflow_file(_mlflow_template: Path) -> Callable[[Path], str]:
    """`mlflow_file(folder)`: the URI of a new database in the folder, unless there is one."""
    from raydc.tracking.mlflow_client import default_uri

    def make(folder: Path) -> str:
        if not (folder / _mlflow_template.name).exists():
            shutil.copyfile(_mlflow_template, folder / _mlflow_template.name)
        return default_uri(folder)

    return make


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """An MLflow server that answers."""
    from benchmarks.mlflow_server import Server

    made = Server(tmp_path / "server")
    try:
        made.start()
        made.wait()
        yield made
    finally:
        made.stop()
