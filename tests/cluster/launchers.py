"""The launchers of cluster/, and what every one of them has to keep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2] / "cluster"
RAY_UP = sorted(ROOT.glob("*.yaml"))
KUBERNETES = sorted((ROOT / "kubernetes").glob("*.yaml"))
SCRIPTS = sorted([*ROOT.rglob("*.sh"), *ROOT.rglob("*.sbatch")])
FILES = sorted(path for path in ROOT.rglob("*") if path.is_file())


def documents(path: Path) -> list[dict[str, Any]]:
    """The YAML documents of a file."""
    return list(yaml.safe_load_all(path.read_text()))


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))
