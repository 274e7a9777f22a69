"""A real MLflow server on this machine, for benchmarks and tests."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.processes import START_SECONDS, descendants, environment, free_ports, kill
from raydc.errors import TrackingError
from raydc.tracking.reach import probe

LEAN = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
"""Disables MLflow's job queue, which is not used here."""


class Server:
    """An MLflow server on SQLite with its own port, which can be started and stopped repeatedly."""

    def __init__(
        self, folder: Path, database: Path | None = None, options: Sequence[str] = (), **variables: str
    ) -> None:
        """`folder` holds its log and artifacts, and its database unless `database` is given."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        port = free_ports(1)
        self.uri = f"http://127.0.0.1:{port}"
        self._command = [sys.executable, "-m", "mlflow", "server", *options, "--host", "127.0.0.1"]
        self._command += ["--port", str(port), "--workers", "1"]
        self._command += ["--backend-store-uri", f"sqlite:///{database or folder / 'server.db'}"]
        self._command += ["--artifacts-destination", str(folder / "artifacts")]
        self._environment = environment(**LEAN, **variables)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server; it answers after some seconds."""
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, cwd=self.folder, env=self._environment
            )

    def wait(self) -> None:
        """Wait until it answers; `TrackingError` if it does not in time, or refuses the login."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                probe(self.uri)
                return
            except TrackingError as error:
                if "rejects the name" in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.25)

    def stop(self) -> None:
        """Kill the server at once, as if its machine were switched off."""
        if self._process is not None:
            kill(descendants([self._process.pid]))
            self._process.wait()
            self._process = None
