"""(g) The report of 10,000 evaluations: seconds, memory and size of the page.

    python -m benchmarks.report [--kinds replicated many]

The results are synthetic: power laws over images with noise, five methods and labels by epoch and
temperature. `replicated` has 1,000 configurations with ten replicates; `many` has 10,000 configurations with
one each, the largest number that a page supports. Each report is written in its own process, whose peak
memory is recorded; compressed images are omitted, because they do not grow with the number of evaluations.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import publish

KINDS = {"replicated": (5, 5, 4, 10, 10), "many": (5, 5, 16, 25, 1)}
"""Numbers of methods, image counts, teacher epochs, temperatures and seeds."""
METHODS = ("random", "herding", "el2n", "forgetting", "rded")
IPCS = (1, 5, 10, 20, 50)


def rows_of(kind: str) -> list[dict[str, Any]]:
    """10,000 finished rows with the columns that a report reads."""
    methods, ipcs, epochs, temperatures, seeds = (range(count) for count in KINDS[kind])
    generator = np.random.default_rng(0)
    found = []
    for method, ipc, epoch, temperature, seed in itertools.product(
        methods, ipcs, epochs, temperatures, seeds
    ):
        hard = epoch == 0 and temperature == 0
        best = 0.75 - 0.02 * method - 0.01 * abs(np.log2((epoch + 1) / IPCS[ipc])) - 0.002 * temperature
        accuracy = best - 0.4 * IPCS[ipc] ** -0.5 + generator.normal(0, 0.01)
        found.append(
            {
                "evaluation_id": f"{len(found):020x}",
                "study": "report",
                "seed": seed,
                "status": "finished",
                "images.method": METHODS[method],
                "images.ipc": IPCS[ipc],
                "labels.kind": "hard" if hard else "soft",
                "labels.teacher_epoch": None if hard else 2 * epoch + 1,
                "labels.temperature": None if hard else 1.0 + temperature / 2,
                "test_acc": float(accuracy),
                "val_acc": float(accuracy + generator.normal(0, 0.01)),
                "teacher_test_acc": None if hard else 0.8,
                "test_acc_by_class": [float(accuracy)] * 10,
                "images_bytes": IPCS[ipc] * 24_000,
                "labels_bytes": IPCS[ipc] * (10 if hard else 200),
                "train_seconds": 1.0,
            }
        )
    return found


def measure(kind: str) -> dict[str, Any]:
    """Write the report of one kind in this process."""
    from raydc.report.html import write_report

    rows = rows_of(kind)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        path = write_report(rows, Path(folder) / "report.html", None)
        seconds = time.perf_counter() - began
        return {
            "rows": kind,
            "evaluations": len(rows),
            "seconds": seconds,
            "peak MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "page MB": path.stat().st_size / 1e6,
        }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--alone", choices=list(KINDS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alone is not None:
        print(json.dumps(measure(arguments.alone)))
        return
    rows = []
    for kind in arguments.kinds:
        command = [sys.executable, "-m", "benchmarks.report", "--alone", kind]
        rows.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    publish("report", rows, "cpu")


if __name__ == "__main__":
    main()
