"""(h) 10,000 evaluations in MLflow: the cost of logging, and the time to view them.

    python -m benchmarks.tracking [--evaluations 10000] [--screenshot FILE]

The students do nothing, as in `benchmarks.orchestration`, so that training does not hide the cost of MLflow.
The same study runs with and without MLflow (SQLite in its folder); then a real MLflow server serves it to a
headless Chromium, if one is installed, and to raydc's own commands, each in its own process.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.mlflow_server import Server
from benchmarks.orchestration import idle_study
from benchmarks.processes import descendants, kill
from benchmarks.record import publish

PATIENCE_SECONDS = 180.0
"""Time limit for rendering a page."""
ROWS_SHOWN = "document.querySelectorAll('[role=row] a[href*=\"/runs/\"]').length"
"""JavaScript expression for the number of runs in MLflow's table."""


def run_here(count: int, out: Path, *, tracked: bool) -> dict[str, Any]:
    """Run `count` evaluations in this process, with or without MLflow."""
    from raydc.orchestration.progress import Silent
    from raydc.study import launch

    study = idle_study("tracked", count, ["random", "herding"], tracker="mlflow" if tracked else "none")
    began = time.process_time()
    summary = launch.run(study, out, store_uri=f"{out}-store", progress=Silent())
    assert (summary.finished, summary.behind) == (count, 0), summary
    return {
        "stage": summary.stage_seconds["evaluations"],
        "wall": summary.wall_seconds,
        "driver": time.process_time() - began,
    }


def apart(count: int, out: Path, *, tracked: bool) -> tuple[dict[str, Any], float]:
    """As `run_here`, in a separate process; also returns its peak memory in MB."""
    kind = "with" if tracked else "without"
    command = ["-m", "benchmarks.tracking", "--evaluations", str(count), "--side", kind, "--out", str(out)]
    text, _, peak = timed(command)
    return json.loads(text.splitlines()[-1]), peak


def timed(command: Sequence[str], folder: Path | None = None) -> tuple[str, float, float]:
    """(output, wall seconds, peak MB) of a Python command, run in `folder`; `SystemExit` if it fails."""
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen([sys.executable, *command], stdout=output, stderr=output, cwd=folder)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        output.seek(0)
        text = output.read()
    if status:
        raise SystemExit(f"{' '.join(command)} failed:\n{text[-4000:]}")
    return text, seconds, usage.ru_maxrss / 1024


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
        """Wait until a JavaScript expression is true; returns the seconds."""
        began = time.perf_counter()
        while time.perf_counter() - began < PATIENCE_SECONDS:
            reply = await self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
            if reply["result"].get("value"):
                return time.perf_counter() - began
            await asyncio.sleep(0.05)
        raise SystemExit(f"the page never had {expression}")


async def load(page: str, expression: str, screenshot: Path | None = None) -> list[float]:
    """Seconds until `expression` is true on a page, opened twice in a new browser."""
    # Its processes may still write for a moment.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
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
                        await asyncio.sleep(1.0)  # wait for fade-in effects
                        shot = await browser.ask("Page.captureScreenshot", format="png")
                        screenshot.write_bytes(base64.b64decode(shot["data"]))
                    return seconds
        finally:
            kill(descendants([process.pid]))
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--evaluations", type=int, default=10_000)
    parser.add_argument("--screenshot", type=Path, help="write a PNG of the page of runs to this file")
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
    out = folder / "tracked"
    plain, plain_peak = apart(count, folder / "plain", tracked=False)
    tracked, peak = apart(count, out, tracked=True)
    found: list[tuple[str, float, float | None]] = [
        ("students that do nothing, without MLflow", plain["stage"], plain_peak),
        ("the same while MLflow is written", tracked["stage"], peak),
        ("whole run, without MLflow", plain["wall"], None),
        ("whole run, until MLflow has everything", tracked["wall"], None),
        ("logging: the driver's processor time for it", tracked["driver"] - plain["driver"], None),
    ]
    print(*found, sep="\n", flush=True)
    server = Server(folder / "server", database=out / "mlflow.db")
    server.start()
    try:
        server.wait()
        for row in commands(server.uri, out):
            found.append(row)
            print(*row, flush=True)
        if shutil.which("chromium") is None:
            print("no Chromium is installed: the pages of MLflow are not timed")
        else:
            found += pages(server.uri, screenshot)
    finally:
        server.stop()
    return [
        {"what": what, "seconds": seconds, "ms an evaluation": 1e3 * seconds / count, "peak MB": peak}
        for what, seconds, peak in found
    ]


def commands(uri: str, out: Path) -> Iterator[tuple[str, float, float | None]]:
    """(what, seconds, peak MB) of raydc's own commands."""
    record = ["mlflow:tracked", "--tracking-uri", uri]
    for what, command in {
        "raydc results mlflow:": ["results", *record, "--json"],
        "raydc watch --once mlflow:": ["watch", *record, "--once"],
        "raydc compare mlflow: --by images.method": ["compare", *record, "--by", "images.method"],
        "raydc report mlflow:": ["report", *record, "--figures", f"{out}-figures"],
        "raydc report DIR": ["report", str(out)],
    }.items():
        _, seconds, peak = timed(["-m", "raydc", *command], out)
        yield what, seconds, peak


def pages(uri: str, screenshot: Path | None) -> Iterator[tuple[str, float, float | None]]:
    """(what, seconds, None) of MLflow's pages in a new browser, and again in the same browser."""
    runs = f"{uri}/#/experiments/1/runs?workflowType=machine_learning"
    for what, page, wanted, shot in (
        ("MLflow's page of the runs by raydc's link", f"{runs}&viewStateShareKey=raydc", 25, screenshot),
        ("MLflow's page without it", runs, 1, None),
    ):
        first, again = asyncio.run(load(page, f"{ROWS_SHOWN} >= {wanted}", shot))
        yield f"{what}, first time", first, None
        yield f"{what}, again", again, None


if __name__ == "__main__":
    main()
