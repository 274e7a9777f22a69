"""(e) Parallel efficiency of a real study: student seconds over workers x wall time of the evaluations.

    python -m benchmarks.study [STUDY] [--set KEY=VALUE]...

Default: quickstart with ten times its steps (300 students). The study runs into a new folder with a new
store, including MLflow; the efficiency is the one that `raydc run` prints at its end.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks.record import publish
from raydc.orchestration.progress import Silent
from raydc.spec import shipped_studies
from raydc.spec.study import load_study
from raydc.study import launch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("study", nargs="?", default="quickstart")
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    chosen = parser.parse_args()
    settings = chosen.settings or (["base.train.steps=2000"] if chosen.study == "quickstart" else [])
    study = load_study(shipped_studies.find(chosen.study), settings=settings)
    with tempfile.TemporaryDirectory() as folder:
        summary = launch.run(study, Path(folder) / study.name, progress=Silent())
    assert summary.efficiency is not None
    row = {
        "study": study.name,
        "evaluations": summary.finished,
        "failed": summary.failed,
        "workers": summary.workers,
        "student seconds": summary.student_seconds,
        "stage seconds": summary.stage_seconds["evaluations"],
        "parallel efficiency": summary.efficiency,
        "not recorded in MLflow": summary.behind,
    }
    publish(f"study-{study.name}", [row], "cpu", settings=settings)


if __name__ == "__main__":
    main()
