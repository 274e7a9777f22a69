"""MLflow run ids of evaluations, stored in a study's folder; does not import mlflow."""

from __future__ import annotations

import json
from pathlib import Path

from raydc.files.plain_json import parse_json

FILE = "tracked.jsonl"


def note_run(folder: Path, evaluation_id: str, run_id: str) -> None:
    """Store the id of the run that records an evaluation."""
    with (folder / FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"evaluation_id": evaluation_id, "run_id": run_id}) + "\n")


def run_ids(folder: Path) -> dict[str, str]:
    """Run ids by evaluation id; an incomplete line, left by a killed process, is skipped."""
    path = folder / FILE
    found: dict[str, str] = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                entry = parse_json(line)
                found[entry["evaluation_id"]] = entry["run_id"]
            except (ValueError, KeyError, TypeError):
                continue
    return found
