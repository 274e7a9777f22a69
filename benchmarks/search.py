"""A search against the whole grid: is its winner as good, for a quarter of the student epochs?

    python -m benchmarks.search --out DIR [--kinds tpe gp finals] [--searches 10] [--workers 2] [--name NAME]

A grid over temperature, teacher epoch and augmentation on digits, and searches over the same values with
several sampler seeds each: a quarter of the points by TPE and by a Gaussian process; for the same number of
epochs, more points with one replicate each and finals of the best; and more points by TPE with a pruner that
stops weak students early. All choose by val_acc; the winners are run again with ten fresh replicates. The
criterion: no winner of a search is below the grid's by more than one standard error of the difference, in
pairs of equal seeds. Every search has its own store, so that no results are reused, and one worker, so that
it suggests the same points on every machine; with more workers, points are suggested while others are in
training.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import raydc
from benchmarks.record import publish
from raydc.analysis.curves import label_of

GRID = {
    "labels.temperature": [0.5, 1.0, 2.0, 4.0, 8.0, 16.0],
    "labels.teacher_epoch": [1, 2, 4, 8, 16, 30],
    "train.augment": ["none", "crop", "cutout", ["crop", "cutout"]],
}
POINTS = 6 * 6 * 4
SEEDS, STEPS, FRESH = 2, 100, tuple(range(100, 110))
FINALISTS, FURTHER = 4, 3
KINDS: dict[str, dict[str, Any]] = {
    "tpe": {"trials": POINTS // 4, "sampler": "tpe"},
    "gp": {"trials": POINTS // 4, "sampler": "gp"},
    "finals": {
        "trials": POINTS * SEEDS // 4 - FINALISTS * FURTHER,
        "sampler": "gp",
        "finalists": FINALISTS,
        "finalist_seeds": FURTHER,
    },
    "median": {"trials": POINTS // 2, "sampler": "tpe", "scheduler": "median"},
    "asha": {"trials": POINTS // 2, "sampler": "tpe", "scheduler": "asha"},
}
ONE_REPLICATE = ("finals",)
"""Kinds of searches whose points have one replicate before the finals."""
STOPPED_AFTER = re.compile(r"after (\d+) of")
BASE: dict[str, Any] = {
    "dataset": "digits",
    "teacher": {
        "arch": "convnet-d2-w16", "epochs": 30, "keep": GRID["labels.teacher_epoch"], "lr": 0.1,
        "momentum": 0.9, "batch_size": 64, "augment": "none",
    },
    "base": {
        "images": {"method": "random", "ipc": 2},
        "labels": {"kind": "soft"},
        "student": {"arch": "convnet-d2-w16"},
        "train": {"recipe": "label-worth", "steps": STEPS, "lr": 0.05},
    },
    "seeds": SEEDS,
}  # fmt: skip


def run(name: str, out: Path, store: str = "store", **blocks: Any) -> raydc.Run:
    """Run the base study with `blocks` replaced; studies with the same store train equal points once."""
    study = raydc.Study.from_dict({"name": name, **BASE, **blocks})
    return study.run(out / name, store=str(out / store))


def steps_of(rows: pd.DataFrame) -> int:
    """Number of student steps, including stopped students; an epoch of this small set is one step."""
    stopped = rows.loc[rows["status"] == "stopped", "error"].str.extract(STOPPED_AFTER, expand=False)
    return int(rows["steps"].sum() + stopped.astype(int).sum())


def fresh(name: str, out: Path, point: dict[str, Any]) -> pd.Series:
    """Test accuracies of a point in the fresh replicates, by seed."""
    # Tables store a list of augmentations as one string.
    chosen = {
        key: [value.split("+") if isinstance(value, str) else float(value)] for key, value in point.items()
    }
    rows = run(name, out, grid=chosen, seeds=list(FRESH)).results
    return rows.set_index("seed")["test_acc"]


def search(kind: str, seed: int, workers: int, out: Path, expected: pd.Series) -> dict[str, Any]:
    """Run one search and compare its winner with the test accuracies of the grid's winner."""
    name = f"{kind}-{seed}"
    space = {key: {"categorical": values} for key, values in GRID.items()}
    block = {**KINDS[kind], "seed": seed, "winner_seeds": 0, "space": space}
    seeds = 1 if kind in ONE_REPLICATE else SEEDS
    blocks: dict[str, Any] = {"search": {"optuna": block}, "seeds": seeds, "resources": {"workers": workers}}
    done = run(f"search-{name}", out, f"store-{name}", **blocks)
    history = done.summary.search
    assert history is not None
    winner = history["trials"][history["winner"]]
    difference = fresh(f"winner-{name}", out, winner["params"]) - expected
    error = float(difference.std(ddof=1) / np.sqrt(len(difference)))
    return {
        "search": kind,
        "seed": seed,
        "points": len(history["trials"]),
        "of the grid's epochs": steps_of(done.results) / (POINTS * SEEDS * STEPS),
        "winner": label_of(winner["params"]),
        "difference": float(difference.mean()),
        "standard error": error,
        "as good": bool(difference.mean() >= -error),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--searches", type=int, default=3, help="number of seeds per kind (default: 3)")
    parser.add_argument("--workers", type=int, default=1, help="workers per search (default: 1)")
    parser.add_argument("--name", default="search", help="name of the file in benchmarks/results")
    arguments = parser.parse_args()
    out = arguments.out
    table = run("grid", out, grid=GRID).results
    best = table.groupby(list(GRID))["val_acc"].mean().idxmax()
    expected = fresh("grid-winner", out, dict(zip(GRID, best, strict=True)))
    rows = [
        search(kind, seed, arguments.workers, out, expected)
        for kind in arguments.kinds
        for seed in range(arguments.searches)
    ]
    publish(
        arguments.name,
        rows,
        "cpu",
        workers=arguments.workers,
        grid_points=POINTS,
        grid_test_acc=float(expected.mean()),
    )


if __name__ == "__main__":
    main()
