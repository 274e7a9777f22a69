"""raydc sync: updates the tracker from the ledger, and imports results made elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raydc.analysis.curves import varying_keys
from raydc.errors import InputError
from raydc.files.plain_json import parse_json
from raydc.spec.result import FAILED, FINISHED, Row
from raydc.spec.study import load_study
from raydc.study.publishing import publish_results
from raydc.tracking import study_folder, trackers
from raydc.tracking.ledger import Ledger

PATIENCE_SECONDS = 24 * 3600.0
"""Longest time that `raydc sync` waits for a tracker without progress."""


@dataclass(frozen=True)
class Synced:
    """What a sync did."""

    rows: int
    """Number of rows in the ledger."""
    imported: int
    """Number of rows imported from another file."""
    behind: int
    """Number of rows that the tracker still lacks."""
    tracker: str | None
    """Name of the tracker in messages; None if the study has none."""


def sync(out: Path, tracking_uri: str | None, imported: Path | None) -> Synced:
    """Record missing results in the tracker, at `tracking_uri` or else at the study's own URI.

    Raises `InputError` if the folder contains no study, `TrackingError` if the tracker cannot start.
    """
    if study_folder.study_name(out) is None:
        raise InputError(f"{str(out)!r} holds no study; give the folder of a run")
    study = load_study(out / study_folder.STUDY).located(tracking_uri, None)
    with study_folder.locked(out), Ledger(out) as ledger:
        taken = []
        if imported is not None:
            known = ledger.finished()
            taken = [r for r in read_results(imported, study.name) if r["evaluation_id"] not in known]
            ledger.append(taken)
        rows = list(ledger.rows.values())
        tracker = trackers.create(study, out, varying_keys(rows), resuming=True)
        tracker.start()
        tracker.record(rows)
        study_folder.write_results(out, study_folder.with_run_ids(out, ledger.rows))
        publish_results(tracker, rows, out)
        failed = any(row["status"] == FAILED for row in rows)
        behind = tracker.close(FAILED if failed else FINISHED, PATIENCE_SECONDS)
        study_folder.write_results(out, study_folder.read_folder(out))
        entry = study.tracking.entry
        return Synced(len(ledger.rows), len(taken), behind, entry.label if entry.records else None)


def read_results(path: Path, study: str) -> list[Row]:
    """Rows that `python -m raydc.evaluate` wrote; `InputError` names the first line that is not one."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--import is {str(path)!r}, which cannot be read: {error}") from None
    return [_result(line, f"{path}: line {number}", study) for number, line in enumerate(lines, 1)]


def _result(line: str, where: str, study: str) -> Row:
    try:
        row: Any = parse_json(line)
    except ValueError:
        raise InputError(
            f"{where} is not JSON (or holds NaN); give the results.jsonl of raydc.evaluate"
        ) from None
    needed = ("evaluation_id", "study", "seed", "status", "test_acc", "started_at", "finished_at")
    if not isinstance(row, dict) or (missing := [key for key in needed if key not in row]):
        lacking = f" ({missing[0]} is missing)" if isinstance(row, dict) else ""
        raise InputError(f"{where} is not a result{lacking}; give the results.jsonl of raydc.evaluate")
    accuracy = row["test_acc"]
    is_valid = row["status"] == FAILED or (
        row["status"] == FINISHED and isinstance(accuracy, int | float) and 0 <= accuracy <= 1
    )
    times = [row["started_at"], row["finished_at"]]
    is_valid &= all(isinstance(t, int | float) and not isinstance(t, bool) for t in times)
    is_valid &= isinstance(row["seed"], int) and isinstance(row["evaluation_id"], str)
    if not is_valid:
        raise InputError(f"{where} has an invalid status, accuracy or time; nothing was imported")
    if row["study"] != study:
        raise InputError(f"{where} belongs to the study {row['study']!r}, not to {study!r}")
    return row
