"""Fuzz every reader of files from others, guided by coverage.

    python -m tests.fuzz [--inputs N] [--target NAME ...] [--keep DIR]

Each target gets an equal part of the inputs, in a process of its own with a limit of time an input and of
memory. An input that a target neither reads nor refuses in one sentence is kept below DIR/crashes, and the
command exits with 1. Seeds are valid files and what once went wrong. Needs `pip install 'raydc[fuzz]'`.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.record import publish
from tests.fuzz.targets import TARGETS, Target

SECONDS_AN_INPUT = 20
"""By the clock, so that a busy machine is no hang."""
MEMORY_MIB = 4096
LONGEST_INPUT = 65536
MOST_CRASHES = 5
"""Crashes of a target after which it is given up; the first are to be mended anyway."""
REGRESSIONS = Path(__file__).parent / "regressions"
ROOT = Path(__file__).parents[2]


def main() -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("--inputs", type=int, default=100_000, help="inputs of all targets together")
    parser.add_argument("--target", choices=list(TARGETS), action="append", help="only this target")
    parser.add_argument("--keep", type=Path, help="folder for corpora and crashes (default: a temporary one)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the mutations")
    chosen = parser.parse_args()
    if find_spec("atheris") is None:
        print("error: atheris is not installed; `pip install 'raydc[fuzz]'` brings it", file=sys.stderr)
        return 2
    folder = (chosen.keep or Path(tempfile.mkdtemp(prefix="raydc-fuzz-"))).absolute()
    targets = [TARGETS[name] for name in chosen.target or TARGETS]
    share = -(-chosen.inputs // len(targets))
    rows = []
    for target in targets:
        rows.append(fuzz(target, share, chosen.seed, folder))
        print(rows[-1], flush=True)
    crashes = sum(row["crashes"] for row in rows)
    total = sum(row["inputs"] for row in rows)
    publish(
        "fuzz",
        rows,
        "cpu",
        inputs=total,
        crashes=crashes,
        seconds_an_input=SECONDS_AN_INPUT,
        memory_limit_mib=MEMORY_MIB,
    )
    if crashes:
        print(f"{crashes} inputs were neither read nor refused; they lie in {folder / 'crashes'}")
    return 1 if crashes else 0


def fuzz(target: Target, inputs: int, seed: int, folder: Path) -> dict[str, Any]:
    """Run one target on so many inputs, going on after crashes; returns its row of the table."""
    corpus, crashes = folder / "corpus" / target.name, folder / "crashes" / target.name
    for made in (corpus, crashes):
        made.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(target.seeds()):
        (corpus / f"seed-{number}").write_bytes(content)
    words = folder / f"{target.name}.dict"
    words.write_text(dictionary(target.seeds()))
    done, said, failed, slowest, peak = 0, "", 0, 0, 0
    while done < inputs and failed < MOST_CRASHES:
        options = {
            "runs": inputs - done,
            "seed": seed + failed,
            "timeout": SECONDS_AN_INPUT,
            "rss_limit_mb": MEMORY_MIB,
            "max_len": LONGEST_INPUT,
            "dict": words,
            "artifact_prefix": f"{crashes}/",
            "print_final_stats": 1,
            "verbosity": 1,
        }
        arguments = [f"-{key}={value}" for key, value in options.items()]
        # libFuzzer ends its process without cleaning up; in memory, where the system has such a folder.
        with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as scratch:
            ran = subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "tests.fuzz.coverage",
                    target.name,
                    *arguments,
                    corpus,
                    *known(target),
                ],
                cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": scratch},
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
            )
        said = ran.stderr + ran.stdout
        slowest = max(slowest, statistic(said, "slowest_unit_time_sec"))
        peak = max(peak, statistic(said, "peak_rss_mb"))
        done += max(1, statistic(said, "number_of_executed_units") or executed(said))
        if ran.returncode:
            failed += 1
            print(said[-3000:], file=sys.stderr, flush=True)
    covered = re.findall(r"cov: (\d+) ft: (\d+)", said) or [("0", "0")]
    return {
        "target": target.name,
        "inputs": done,
        "per_second": statistic(said, "average_exec_per_sec"),
        "branches": int(covered[-1][0]),
        "features": int(covered[-1][1]),
        "crashes": failed,
        "slowest_seconds": slowest,
        "peak_memory_mib": peak,
    }


def known(target: Target) -> list[Path]:
    """The folder of what once went wrong with a target, if there is one."""
    folder = REGRESSIONS / target.name
    return [folder] if folder.is_dir() else []


def statistic(said: str, name: str) -> int:
    """One of libFuzzer's final figures; 0 if it was not said."""
    found = re.findall(rf"stat::{name}:\s+(\d+)", said)
    return int(found[-1]) if found else 0


def executed(said: str) -> int:
    """Inputs until a crash: the number of the last one that libFuzzer has spoken of."""
    found = re.findall(r"^#(\d+)", said, re.MULTILINE)
    return int(found[-1]) if found else 0


def dictionary(seeds: Sequence[bytes]) -> str:
    """Words and numbers of the seeds, in libFuzzer's form, for mutations that hit a name at once."""
    found = {word for seed in seeds for word in re.findall(rb"[A-Za-z_][A-Za-z0-9_.-]{2,30}", seed)}
    words = sorted(word.decode() for word in found)[:400]
    return "".join(f'"{word}"\n' for word in [*words, "1e999", "-1", "9999999999", "null", ".inf", ".nan"])


if __name__ == "__main__":
    sys.exit(main())
