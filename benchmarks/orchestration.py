"""(d) Orchestration: overhead per evaluation, for 1,000 and 10,000 evaluations.

    python -m benchmarks.orchestration [--counts 1000 10000]

The students do nothing (`steps: 0` on digits, one tiny test pass), so the evaluation stage is overhead: Tune,
bundles, rows, ledger. MLflow is switched off here and its writer is timed separately, on the rows of the
smaller run; the driver's peak memory is measured in one process per count.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.record import publish
from raydc.spec.study import StudySpec, parse_study

STUDY = """
name: {name}
dataset: {{name: digits}}
teacher: {{arch: convnet-d1-w1, epochs: 1, keep: [1], augment: none, batch_size: 250}}
base:
  images: {{method: random, ipc: 1, seed: 0}}
  labels: {{kind: soft, teacher_epoch: 1}}
  student: {{arch: convnet-d1-w1}}
  train: {{recipe: label-worth, steps: 0, augment: none}}
grid:
  images.method: [{methods}]
  labels.temperature: [{temperatures}]
seeds: {seeds}
tracking: {{kind: {tracker}}}
"""
SEEDS = 10


def idle_study(name: str, count: int, methods: Sequence[str], tracker: str) -> StudySpec:
    """A study of `count` evaluations whose students do nothing, recorded by a tracker of this kind."""
    temperatures = ", ".join(f"{1 + i / 1000:.3f}" for i in range(count // SEEDS // len(methods)))
    text = STUDY.format(
        name=name, methods=", ".join(methods), temperatures=temperatures, seeds=SEEDS, tracker=tracker
    )
    return parse_study(text, f"{name}.yaml")


def measure(count: int, out: Path) -> dict[str, Any]:
    """Run `count` evaluations in this process, without MLflow."""
    from raydc.commands.app import GARBAGE_THRESHOLDS
    from raydc.orchestration.progress import Silent
    from raydc.study import launch

    gc.set_threshold(*GARBAGE_THRESHOLDS)  # as the command does
    study = idle_study("overhead", count, ["random"], tracker="none")
    summary = launch.run(study, out, progress=Silent())
    assert summary.finished == count, summary
    stage = summary.stage_seconds["evaluations"]
    return {
        "evaluations": count,
        "stage seconds": stage,
        "ms an evaluation": 1e3 * stage / count,
        "ms an evaluation, in a worker": 1e3 * summary.student_seconds / count,
        "whole run seconds": summary.wall_seconds,
        "driver peak MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def write_mlflow(out: Path, count: int, *, together: bool) -> float:
    """Milliseconds per run of MLflow's writer alone, with many runs per transaction or one each."""
    from raydc.tracking.mlflow_client import default_uri
    from raydc.tracking.mlflow_tracker import MlflowTracker
    from raydc.tracking.study_folder import read_folder

    rows = read_folder(out)[:count]
    folder = out / ("mlflow-together" if together else "mlflow-apart")
    folder.mkdir()
    tracker = MlflowTracker(default_uri(folder), "overhead", folder)
    tracker.start()
    if not together:
        tracker.writer.sqlite = None
    start = time.perf_counter()
    tracker.record(rows)
    tracker.close("finished", 600.0)
    return 1e3 * (time.perf_counter() - start) / len(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 10000])
    parser.add_argument("--tracked", type=int, default=1000, help="number of runs for timing MLflow's writer")
    parser.add_argument("--side", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.side is not None:
        found = measure(chosen.side, chosen.out)
        if chosen.side == min(chosen.counts):
            for together in (True, False):
                key = f"MLflow ms a run, {'many in a transaction' if together else 'a request at a time'}"
                found[key] = write_mlflow(chosen.out, chosen.tracked, together=together)
        print(json.dumps(found))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for count in chosen.counts:
            command = [sys.executable, "-m", "benchmarks.orchestration", "--side", str(count)]
            command += ["--counts", *map(str, chosen.counts), "--tracked", str(chosen.tracked)]
            command += ["--out", str(Path(folder) / str(count))]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(done.stderr[-4000:])
            rows.append(json.loads(done.stdout.splitlines()[-1]))
            print(rows[-1], flush=True)
    publish("orchestration", rows, "cpu")


if __name__ == "__main__":
    main()
