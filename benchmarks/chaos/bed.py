"""A real study under fault injection: its folder, its services, and its monitoring.

injector (here) --signals, damage--> driver, nodes, workers, MLflow, store
      ^                                   |
      +---- watch: ledger, every 50 ms ---+
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from benchmarks.chaos.services import Cluster, Driver
from benchmarks.mlflow_server import Server
from benchmarks.processes import descendants, kill, title
from raydc.spec.result import FINISHED
from raydc.tracking.ledger import FILE, decode

STUDY = """
name: {name}
dataset: digits
teacher: {{arch: convnet-d2-w8, epochs: 3, keep: [1, 3], lr: 0.1, batch_size: 64, augment: none}}
base:
  images: {{method: random}}
  labels: {{kind: soft}}
  student: {{arch: convnet-d2-w8}}
  train: {{recipe: label-worth, steps: {steps}, augment: none, lr: 0.05}}
grid:
  images.ipc: [1, 2, 5]
  labels.teacher_epoch: [1, 3]
  labels.temperature: [1, 4]
seeds: {seeds}
resources: {{workers: 2, evaluation_timeout_seconds: {timeout}}}
"""
POINTS = 3 * 2 * 2
"""Number of points of the grid, which is the number of evaluations per replicate."""
TIMEOUT_SECONDS = 20.0
"""Time limit of an evaluation, which takes less than a second."""
STUDENTS = ("ray::ResourceTrainable", "ray::StudentWorker")
"""Prefixes of the names of student processes; the first is Tune's for a trainable that requests cores."""
TEACHERS = ("ray::TeacherActor",)
COUNTER = Path(__file__).with_name("counting.py")
LOOK_SECONDS = 0.05
MOST_STARTS = 40
"""A study that is not finished after this number of driver starts counts as stuck."""


class StuckError(Exception):
    """The study has not ended within its limit of wall time, or cannot end."""


class Bed:
    """A study with its own folder, store and cluster; only the MLflow server is shared with other studies."""

    def __init__(
        self,
        folder: Path,
        name: str,
        evaluations: int,
        *,
        steps: int,
        server: Server | None = None,
        on_cluster: bool = False,
        limit_seconds: float,
    ) -> None:
        self.folder = folder
        self.evaluations = evaluations
        self.server = server
        folder.mkdir(parents=True)
        self.out, self.store, self.starts = folder / "out", folder / "store", folder / "starts.txt"
        text = STUDY.format(name=name, steps=steps, seeds=evaluations // POINTS, timeout=TIMEOUT_SECONDS)
        (folder / "study.yaml").write_text(text)
        variables = {"RAYDC_PLUGINS": str(COUNTER), "RAYDC_CHAOS_STARTS": str(self.starts)}
        self.cluster = Cluster(**variables) if on_cluster else None
        arguments = ["run", "study.yaml", "--out", "out", "--store", "store", "--no-report"]
        arguments += ["--tracking-uri", server.uri] if server is not None else []
        if self.cluster is not None:
            arguments[5] = str(self.store)
            arguments += ["--address", self.cluster.address]
            variables |= self.cluster.client
        self.driver = Driver(folder, arguments, variables)
        self.codes: list[int] = []
        """Exit codes of driver processes that ended by themselves."""
        self.seen: dict[str, float] = {}
        """When each finished row was first seen in the ledger, in seconds of the monotonic clock."""
        self._family: dict[int, psutil.Process] = {}
        self._limit = limit_seconds
        self._began = time.monotonic()
        self._over = threading.Event()
        self._reading = threading.Lock()
        self._position = 0
        self._watch = threading.Thread(target=self._look, daemon=True)

    # --- watching -----------------------------------------------------------------------------

    def _look(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            self._read()

    def _read(self) -> None:
        """Record new rows of the ledger."""
        path = self.out / FILE
        with self._reading:
            if not path.exists():
                return
            with path.open("rb") as file:
                file.seek(self._position)
                content = file.read()
            whole = content.rfind(b"\n") + 1
            self._position += whole
            for row in map(decode, content[:whole].splitlines()):
                if row is not None and row["status"] == FINISHED:
                    self.seen.setdefault(row["evaluation_id"], time.monotonic())

    def roots(self) -> list[int]:
        """Ids of the processes from which all others descend."""
        own = [] if self.driver.pid is None else [self.driver.pid]
        return own + ([] if self.cluster is None else self.cluster.roots())

    def family(self) -> list[psutil.Process]:
        """All running processes of the study, which are also recorded."""
        found = descendants(self.roots())
        self._family |= {process.pid: process for process in found}
        return found

    def named(self, names: tuple[str, ...]) -> list[psutil.Process]:
        """The processes whose names start with one of `names`, in the order of their ids."""
        found = [process for process in self.family() if title(process).startswith(names)]
        return sorted(found, key=lambda process: process.pid)

    def students_by_node(self) -> dict[str, list[int]]:
        """Ids of the students' workers on each node of the cluster."""
        assert self.cluster is not None
        return {
            node: [p.pid for p in descendants([root]) if title(p).startswith(STUDENTS)]
            for node, root in zip(("head", "worker"), self.cluster.roots(), strict=True)
        }

    def wait(self, until: Callable[[], bool], seconds: float = float("inf")) -> bool:
        """Wait until a condition is true; returns whether it was in time. `StuckError` after the study's
        limit."""
        deadline = time.monotonic() + seconds
        while not until():
            if time.monotonic() - self._began > self._limit:
                raise StuckError(f"it has not ended after {self._limit:g} s")
            if time.monotonic() > deadline:
                return False
            time.sleep(LOOK_SECONDS)
        return True

    def ended(self) -> bool:
        """Whether the driver's process has ended."""
        return self.driver.pid is None

    # --- acting -------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start the cluster, if any, then the clock and the driver."""
        if self.cluster is not None:
            self.cluster("start")
        self._watch.start()
        self._began = time.monotonic()
        self.driver.start()

    def kill_driver(self) -> None:
        """SIGKILL the driver; `resume` restarts it."""
        self.family()
        self.driver.kill()

    def resume(self) -> None:
        """Start the same command again."""
        if len(self.driver.starts) >= MOST_STARTS:
            raise StuckError(f"the driver was started {MOST_STARTS} times and ended with {self.codes}")
        self._read()
        self.driver.start()

    def reach(self, rows: int) -> bool:
        """Wait until `rows` evaluations are finished; returns whether the study is still running."""
        while True:
            self.wait(lambda: self.ended() or len(self.seen) >= rows)
            if not self.ended():
                return True
            if not self._restart():
                return False

    def finish(self) -> float:
        """Run the study to its end; returns the seconds since its start."""
        while True:
            self.wait(self.ended)
            if not self._restart():
                return time.monotonic() - self._began

    def note_end(self) -> int:
        """Record and return the exit code of a driver that has ended by itself."""
        code = self.driver.code
        assert code is not None
        self.codes.append(code)
        return code

    def _restart(self) -> bool:
        """Restart a driver that ended before its study was finished and recorded."""
        code = self.note_end()
        if code == 0:
            return False
        if code == 2:
            raise StuckError("the driver refuses the study; see driver.log")
        if code == 4 and self.server is not None:
            self.server.wait()
        self.resume()
        return True

    def dump(self) -> None:
        """Write the stack of every process to a file, for debugging."""
        tool = Path(sys.executable).with_name("py-spy")
        with (self.folder / "stuck.txt").open("w") as file:
            for process in self.family():
                name = title(process)
                file.write(f"\n=== {process.pid} {name[:300]}\n")
                if tool.exists() and ("raydc" in name or name.startswith("ray::")):
                    told = subprocess.run(
                        [str(tool), "dump", "--nonblocking", "--pid", str(process.pid)],
                        capture_output=True,
                        text=True,
                        timeout=60,
                        check=False,
                    )
                    file.write(told.stdout + told.stderr)

    def left_over(self) -> list[psutil.Process]:
        """Processes of the study that still run when none should."""
        return [process for process in self._family.values() if process.is_running()]

    def close(self) -> None:
        """End all remaining processes of the study."""
        self.family()
        self.driver.close()
        if self.cluster is not None:
            self.cluster.close()
        kill(self._family.values())
        self._over.set()
