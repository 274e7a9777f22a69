"""Records of figures: machine, date, versions; tables and result files."""

from __future__ import annotations

import datetime
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import raydc

RESULTS = Path(__file__).parent / "results"


def machine(device: str) -> dict[str, Any]:
    """Where and when a figure was measured."""
    cuda = device.startswith("cuda")
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "device": torch.cuda.get_device_name() if cuda else (_processor() or platform.machine()),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "raydc": raydc.__version__,
        "command": "python -m " + " ".join([_module(), *map(_shown, sys.argv[1:])]),
    }


def _shown(argument: str) -> str:
    """An argument without paths of this machine."""
    return "DIR" if Path(argument).is_absolute() else argument


def _module() -> str:
    main = sys.modules["__main__"].__spec__
    return main.name.removesuffix(".__main__") if main is not None else Path(sys.argv[0]).stem


def _processor() -> str:
    """Name of the CPU; empty if the system does not report it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")


def publish(name: str, rows: Sequence[Mapping[str, Any]], device: str, **facts: Any) -> None:
    """Print rows as a table and write them to benchmarks/results/NAME.json."""
    about = machine(device)
    print(f"\n{name}: {about['device']}, {about['cores']} cores, torch {about['torch']}, {about['date']}")
    print_table(rows)
    for key, value in facts.items():
        print(f"{key}: {value}")
    RESULTS.mkdir(exist_ok=True)
    content = {"name": name, **about, **facts, "rows": list(rows)}
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows as a table with the keys of the first row as columns."""
    names = list(rows[0])
    text = [[_cell(row.get(name)) for name in names] for row in rows]
    widths = [max(len(name), *(len(line[i]) for line in text)) for i, name in enumerate(names)]
    for line in [names, ["-" * width for width in widths], *text]:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
