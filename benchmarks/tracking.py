"""(h) 10,000 evaluations in MLflow: what logging costs, and what looking at them takes.

    python -m benchmarks.tracking [--evaluations 10000] [--screenshot FILE]

The students do nothing, as in `benchmarks.orchestration`, so what MLflow takes is not hidden by training.
The same study runs with and without MLflow (SQLite in its folder); then a real MLflow server shows it to a
headless Chromium, if there is one, and to raydc's own commands, each in a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.record import publish

STUDY = """
name: tracked
dataset: {{name: digits}}
teacher: {{arch: convnet-d1-w1, epochs: 1, keep: [1], augment: none, batch_size: 250}}
base:
  images: {{method: random, ipc: 1, seed: 0}}
  labels: {{kind: soft, teacher_epoch: 1}}
  student: {{arch: convnet-d1-w1}}
  train: {{recipe: label-worth, steps: 0, augment: none}}
grid:
  images.method: [random, herding]
  labels.temperature: [{temperatures}]
seeds: {seeds}
"""
SEEDS, METHODS = 10, 2
PATIENCE_SECONDS = 180.0
"""For a server to start, and for a page to be drawn."""
ROWS_SHOWN = "document.querySelectorAll('[role=row] a[href*=\"/runs/\"]').length"
"""Runs that MLflow's table shows."""


def run_here(count: int, out: Path, *, tracked: bool) -> dict[str, Any]:
    """Run `count` evaluations in this process, with or without MLflow."""
    from benchmarks.orchestration import without_record
    from raydc import launch
    from raydc.orchestration.progress import Silent
    from raydc.spec.study import parse_study

    if not tracked:
        without_record(launch)
    temperatures = ", ".join(f"{1 + i / 1000:.3f}" for i in range(count // SEEDS // METHODS))
    study = parse_study(STUDY.format(temperatures=temperatures, seeds=SEEDS), "tracked.yaml")
    began = time.process_time()
    summary = launch.run(study, out, store_uri=f"{out}-store", progress=Silent())
    assert (summary.finished, summary.behind) == (count, 0), summary
    return {
        "stage": summary.stage_seconds["evaluations"],
        "wall": summary.wall_seconds,
        "driver": time.process_time() - began,
    }


def apart(count: int, out: Path, *, tracked: bool) -> tuple[dict[str, Any], float]:
    """As `run_here`, in a process of its own; also its peak memory in MB."""
    kind = "with" if tracked else "without"
    command = ["-m", "benchmarks.tracking", "--evaluations", str(count), "--side", kind, "--out", str(out)]
    text, _, peak = timed(command)
    return json.loads(text.splitlines()[-1]), peak


def timed(command: Sequence[str]) -> tuple[str, float, float]:
    """(output, wall seconds, peak MB) of a Python command; `SystemExit` if it fails."""
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen([sys.executable, *command], stdout=said, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        said.seek(0)
        text = said.read()
    if status:
        raise SystemExit(f"{' '.join(command)} failed:\n{text[-4000:]}")
    return text, seconds, usage.ru_maxrss / 1024


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def serving(database: Path) -> Iterator[str]:
    """The address of an MLflow server on a database."""
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{database}"]
    with (database.parent / "server.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not _answers(uri):
            if time.monotonic() > deadline:
                raise SystemExit("the MLflow server did not start")
            time.sleep(0.5)
        yield uri
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def _answers(uri: str) -> bool:
    try:
        with urllib.request.urlopen(f"{uri}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


class Browser:
    """A page of a headless Chromium, driven by its DevTools protocol."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._asked = 0

    async def ask(self, method: str, **given: Any) -> dict[str, Any]:
        self._asked += 1
        await self._socket.send_json({"id": self._asked, "method": method, "params": given})
        while (answer := await self._socket.receive_json()).get("id") != self._asked:
            pass  # an event
        found: dict[str, Any] = answer["result"]
        return found

    async def until(self, expression: str) -> float:
        """Seconds until a JavaScript expression is true."""
        began = time.perf_counter()
        while time.perf_counter() - began < PATIENCE_SECONDS:
            said = await self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
            if said["result"].get("value"):
                return time.perf_counter() - began
            await asyncio.sleep(0.05)
        raise SystemExit(f"the page never had {expression}")


async def load(page: str, expression: str, screenshot: Path | None = None) -> list[float]:
    """Seconds until `expression` is true on a page, opened twice in a new browser."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1600,1000"]
        command += [f"--user-data-dir={folder}", "--remote-debugging-port=0", "about:blank"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            told = Path(folder, "DevToolsActivePort")
            while not (told.exists() and told.read_text().count("\n")):
                await asyncio.sleep(0.1)
            port = told.read_text().split()[0]
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                    (tab, *_) = [t for t in await answer.json() if t["type"] == "page"]
                async with session.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                    browser, seconds = Browser(socket), []
                    for _ in range(2):
                        await browser.ask("Page.navigate", url="about:blank")
                        await browser.ask("Page.navigate", url=page)
                        seconds.append(await browser.until(expression))
                    if screenshot is not None:
                        await asyncio.sleep(1.0)  # what fades in has faded in
                        shot = await browser.ask("Page.captureScreenshot", format="png")
                        screenshot.write_bytes(base64.b64decode(shot["data"]))
                    return seconds
        finally:
            process.terminate()
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--evaluations", type=int, default=10_000)
    parser.add_argument("--screenshot", type=Path, help="write the page of the runs here, as PNG")
    parser.add_argument("--side", choices=("with", "without"), help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.side is not None:
        print(json.dumps(run_here(chosen.evaluations, chosen.out, tracked=chosen.side == "with")))
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(chosen.evaluations, Path(folder), chosen.screenshot)
    publish("tracking", rows, "cpu", evaluations=chosen.evaluations)


def measure(count: int, folder: Path, screenshot: Path | None) -> list[dict[str, Any]]:
    """All rows of the table."""
    rows: list[dict[str, Any]] = []

    def add(what: str, seconds: float, peak: float | None = None) -> None:
        rows.append(
            {"what": what, "seconds": seconds, "ms an evaluation": 1e3 * seconds / count, "peak MB": peak}
        )
        print(rows[-1], flush=True)

    out = folder / "tracked"
    plain, peak = apart(count, folder / "plain", tracked=False)
    add("students that do nothing, without MLflow", plain["stage"], peak)
    tracked, peak = apart(count, out, tracked=True)
    add("the same while MLflow is written", tracked["stage"], peak)
    add("whole run, without MLflow", plain["wall"])
    add("whole run, until MLflow has everything", tracked["wall"])
    add("logging: the driver's processor time for it", tracked["driver"] - plain["driver"])
    with serving(out / "mlflow.db") as uri:
        record = ["mlflow:tracked", "--tracking-uri", uri]
        for what, command in {
            "raydc results mlflow:": ["results", *record, "--json"],
            "raydc watch --once mlflow:": ["watch", *record, "--once"],
            "raydc compare mlflow: --by images.method": ["compare", *record, "--by", "images.method"],
            "raydc report mlflow:": ["report", *record, "--figures", str(folder / "figures")],
        }.items():
            _, seconds, peak = timed(["-m", "raydc", *command])
            add(what, seconds, peak)
        _, seconds, peak = timed(["-m", "raydc", "report", str(out)])
        add("raydc report DIR", seconds, peak)
        if shutil.which("chromium") is None:
            print("no chromium: the pages of MLflow are not timed")
            return rows
        pages = f"{uri}/#/experiments/1/runs?workflowType=machine_learning"
        for what, page, wanted, shot in (
            ("MLflow's runs page, 25 runs or more shown", f"{pages}&viewStateShareKey=raydc", 25, screenshot),
            ("MLflow's own view of it, the study's run shown", pages, 1, None),
        ):
            first, again = asyncio.run(load(page, f"{ROWS_SHOWN} >= {wanted}", shot))
            add(f"{what}: first time", first)
            add(f"{what}: again", again)
    return rows


if __name__ == "__main__":
    main()
