"""Services of a study that can fail: a cluster of two nodes, and the driver."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from benchmarks.processes import ROOT, START_SECONDS, descendants, environment, free_ports, kill

SCRIPT = ROOT / "cluster" / "local" / "two_nodes.sh"


class Cluster:
    """Two real Ray nodes (cluster/local/two_nodes.sh), one CPU each, with a token."""

    def __init__(self, **variables: str) -> None:
        # Ray's sockets need a short path.
        self.folder = Path(tempfile.mkdtemp(prefix="rdc", dir="/tmp"))
        port = free_ports(5)
        self.address = f"127.0.0.2:{port}"
        own = self.folder / "t"
        self.client = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(own / "token")}
        """Environment variables of clients with the token."""
        self._environment = environment(RAYDC_TRY_DIR=str(own), RAYDC_TRY_PORT=str(port), **variables)

    def __call__(self, word: str) -> None:
        """Run a command: `start`, `lose` (the worker node), `join` (another one) or `stop`."""
        subprocess.run(
            [str(SCRIPT), word],
            env=self._environment,
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=START_SECONDS,
        )

    def roots(self) -> list[int]:
        """Ids of the processes from which the nodes descend."""
        files = [self.folder / "t" / f"{node}.pid" for node in ("head", "worker")]
        return [int(file.read_text()) for file in files if file.exists()]

    def lose_all(self) -> None:
        """Kill both nodes at once, as if the head's machine were lost."""
        kill(descendants(self.roots()))
        self("stop")

    def close(self) -> None:
        """Stop the cluster."""
        self.lose_all()
        shutil.rmtree(self.folder)


class Driver:
    """`raydc run` of one study, which can be restarted."""

    def __init__(self, folder: Path, arguments: Sequence[str], variables: Mapping[str, str]) -> None:
        self._folder = folder
        self._command = [sys.executable, "-m", "raydc", *arguments]
        self._environment = environment(**variables)
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] = (folder / "driver.log").open("ab")
        self.starts: list[float] = []
        """Start time of each of its processes, in seconds of the monotonic clock."""

    @property
    def pid(self) -> int | None:
        """Id of the running process; None if none runs."""
        return None if self._process is None or self._process.poll() is not None else self._process.pid

    @property
    def code(self) -> int | None:
        """Exit code of the last process; None while it runs."""
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        self._log.write(f"--- start {len(self.starts) + 1}\n".encode())
        self._log.flush()
        self.starts.append(time.monotonic())
        self._process = subprocess.Popen(
            self._command, cwd=self._folder, env=self._environment, stdout=self._log, stderr=self._log
        )

    def kill(self) -> None:
        """SIGKILL the process; the Ray that it started ends by itself."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    def close(self) -> None:
        self.kill()
        self._log.close()
