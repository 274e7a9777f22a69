"""What a study runs on and what dies under it: a cluster of two nodes, an MLflow server, the driver.

Every process that is ever stopped descends from one that was started here, and is stopped by its id.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO

import psutil

from raydc.errors import TrackingError
from raydc.tracking.reach import probe

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "cluster" / "local" / "two_nodes.sh"
START_SECONDS = 180.0
"""How long a service may take to start on a busy machine."""
PORTS = (20_000, 32_000)
"""Below those that the kernel gives connections, above those that Ray gives its workers."""
FRESH = ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
"""Variables of other clusters, which none of ours may see."""

LEAN = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
"""Without MLflow's queue of jobs of its own, which nobody here asks for anything."""


def free_ports(count: int) -> int:
    """The first of `count` ports in a row that nobody uses."""
    while True:
        first = random.randrange(*PORTS)
        try:
            for port in range(first, first + count):
                with socket.socket() as free:
                    free.bind(("", port))
        except OSError:
            continue
        return first


def environment(**more: str) -> dict[str, str]:
    """This process's environment with raydc's root on the path, free of other clusters."""
    kept = {name: value for name, value in os.environ.items() if name not in FRESH}
    binaries = Path(sys.executable).parent
    path = f"{binaries}{os.pathsep}{os.environ['PATH']}"
    return {**kept, "PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **more}


def descendants(roots: Iterable[int]) -> list[psutil.Process]:
    """The processes of some ids and all that they started, those that still run."""
    found: list[psutil.Process] = []
    for root in roots:
        try:
            process = psutil.Process(root)
            found += [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            continue
    return found


def title(process: psutil.Process) -> str:
    """What a process calls itself, such as `ray::TeacherActor.label`; empty if it has ended."""
    try:
        return " ".join(process.cmdline()).strip()
    except psutil.Error:
        return ""


def kill(processes: Iterable[psutil.Process]) -> None:
    """SIGKILL those that still run; an id that has become another process's is left alone."""
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


class Cluster:
    """Two real Ray nodes (cluster/local/two_nodes.sh), one CPU each, with a token."""

    def __init__(self, **variables: str) -> None:
        # Ray's sockets need a short path.
        self.folder = Path(tempfile.mkdtemp(prefix="rdc", dir="/tmp"))
        port = free_ports(5)
        self.address = f"127.0.0.2:{port}"
        own = self.folder / "t"
        self.client = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(own / "token")}
        """Variables of those who may come in."""
        self._environment = environment(RAYDC_TRY_DIR=str(own), RAYDC_TRY_PORT=str(port), **variables)

    def __call__(self, word: str) -> None:
        """`start`, `lose` (the worker node), `join` (another) or `stop`."""
        subprocess.run(
            [str(SCRIPT), word],
            env=self._environment,
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=START_SECONDS,
        )

    def roots(self) -> list[int]:
        """Processes whose descendants the nodes are."""
        files = [self.folder / "t" / f"{node}.pid" for node in ("head", "worker")]
        return [int(file.read_text()) for file in files if file.exists()]

    def lose_all(self) -> None:
        """Both nodes die at once, as when the head's machine is lost."""
        kill(descendants(self.roots()))
        self("stop")

    def close(self) -> None:
        """Lose it for good."""
        self.lose_all()
        shutil.rmtree(self.folder)


class Server:
    """A real MLflow server on this machine."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._port = free_ports(1)
        self.uri = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; it answers after some seconds."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self._port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self._folder}/server.db"]
        command += ["--artifacts-destination", str(self._folder / "artifacts")]
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self._folder, env=environment(**LEAN)
            )

    def wait(self) -> None:
        """Return when it answers."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                probe(self.uri)
                return
            except TrackingError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.25)

    def stop(self) -> None:
        """End it at once, as a machine that is switched off."""
        if self._process is not None:
            kill(descendants([self._process.pid]))
            self._process.wait()
            self._process = None


class Driver:
    """`raydc run` of one study, started as often as it takes."""

    def __init__(self, folder: Path, arguments: Sequence[str], variables: Mapping[str, str]) -> None:
        self._folder = folder
        self._command = [sys.executable, "-m", "raydc", *arguments]
        self._environment = environment(**variables)
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] = (folder / "driver.log").open("ab")
        self.starts: list[float] = []
        """When each of its processes was started, in seconds of the monotonic clock."""

    @property
    def pid(self) -> int | None:
        """Of the process that runs now."""
        return None if self._process is None or self._process.poll() is not None else self._process.pid

    @property
    def code(self) -> int | None:
        """How the last process ended; None while it runs."""
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        self._log.write(f"--- start {len(self.starts) + 1}\n".encode())
        self._log.flush()
        self.starts.append(time.monotonic())
        self._process = subprocess.Popen(
            self._command, cwd=self._folder, env=self._environment, stdout=self._log, stderr=self._log
        )

    def kill(self) -> None:
        """SIGKILL; what Ray it had started ends by itself."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    def close(self) -> None:
        self.kill()
        self._log.close()
