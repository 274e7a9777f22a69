"""A search against the whole grid: is its winner as good, for a quarter of the students?

    python -m benchmarks.search --out DIR

A grid over temperature, teacher epoch and augmentation on digits, and a search of the same values with a
quarter of its points, for three seeds of the sampler. Both choose by val_acc; the winners are run again with
ten fresh replicates. The bar: no winner of a search is below the grid's by more than one standard error of
the difference, in pairs of equal seeds.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import raydc
from benchmarks.record import publish

GRID = {
    "labels.temperature": [0.5, 1.0, 2.0, 4.0, 8.0, 16.0],
    "labels.teacher_epoch": [1, 2, 4, 8, 16, 30],
    "train.augment": ["none", "crop", "cutout", ["crop", "cutout"]],
}
POINTS = 6 * 6 * 4
SEEDS, FRESH = 2, tuple(range(100, 110))
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
        "train": {"recipe": "label-worth", "steps": 100, "lr": 0.05},
    },
    "seeds": SEEDS,
}  # fmt: skip


def run(name: str, out: Path, **blocks: Any) -> raydc.Run:
    """Run a study on the base with other blocks; all share one store, so equal points are trained once."""
    study = raydc.Study.from_dict({"name": name, **BASE, **blocks})
    return study.run(out / name, store=str(out / "store"))


def fresh(name: str, out: Path, point: dict[str, Any]) -> pd.Series:
    """Test accuracy of a point in the fresh replicates, by seed."""
    # Tables hold lists of augmentations as one text.
    chosen = {
        key: [value.split("+") if isinstance(value, str) else float(value)] for key, value in point.items()
    }
    rows = run(name, out, grid=chosen, seeds=list(FRESH)).results
    return rows.set_index("seed")["test_acc"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    table = run("grid", out, grid=GRID).results
    best = table.groupby(list(GRID))["val_acc"].mean().idxmax()
    expected = fresh("grid-winner", out, dict(zip(GRID, best, strict=True)))
    rows = []
    for seed in range(3):
        space = {key: {"categorical": values} for key, values in GRID.items()}
        block = {"trials": POINTS // 4, "seed": seed, "winner_seeds": 0, "space": space}
        history = run(f"search-{seed}", out, search={"optuna": block}).summary.search
        assert history is not None
        winner = history["trials"][history["winner"]]
        difference = fresh(f"winner-{seed}", out, winner["params"]) - expected
        error = float(difference.std(ddof=1) / np.sqrt(len(difference)))
        rows.append(
            {
                "seed": seed,
                "points": len(history["trials"]),
                "val_acc": winner["values"][0],
                "difference": float(difference.mean()),
                "standard_error": error,
                "as_good": bool(difference.mean() >= -error),
            }
        )
    publish("search", rows, "cpu", grid_points=POINTS, grid_test_acc=float(expected.mean()))


if __name__ == "__main__":
    main()
