"""The result of a search as JSON, and the digest of what it searches.

DIR/search.db    Optuna's storage, the source of truth for trials and their values
DIR/search.json  the search when the run ended, for the report and for other programs
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raydc.analysis.intervals import mean_of
from raydc.errors import InputError
from raydc.files.atomic import write_atomically
from raydc.files.plain_json import parse_json
from raydc.spec.evaluation import canonical_json
from raydc.spec.result import FINISHED, untested
from raydc.spec.study import StudySpec
from raydc.tracking.ledger import Ledger

if TYPE_CHECKING:
    from raydc.search.ask_tell import Search

HISTORY = "search.json"


def searched(study: StudySpec, dataset_id: str) -> str:
    """Digest of everything that the values of a search depend on."""
    assert study.search is not None
    content = {
        "dataset": dataset_id,
        "base": study.base,
        "teachers": [_teacher(teacher) for teacher in study.teachers.values()],
        "scorer": study.scorer and _teacher(study.scorer),
        "seeds": study.seeds,
        "space": [asdict(dimension) for dimension in study.search.space],
        "metrics": study.search.metrics,
        "modes": study.search.modes,
    }
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


def _teacher(teacher: Any) -> dict[str, Any]:
    """A teacher without the list of kept epochs, to which epochs may be added later."""
    described = asdict(teacher)
    del described["keep"]
    if not described["code"]:
        del described["code"]  # searches of studies without plugins keep their digest
    return described


def history_of(search: Search, ledger: Ledger) -> dict[str, Any]:
    """The search as JSON, with the winner's test accuracy if it was measured."""
    history = search.history()
    rows = [ledger.rows.get(planned.id) for planned in search.winners()]
    measured = [row["test_acc"] for row in rows if row is not None and row["status"] == FINISHED]
    history["points"] = search.spec.points
    history["replicates"] = len(search.study.seeds)
    history["finals"] = {
        number: asdict(mean_of(values)) if values else None for number, values in search.finals().items()
    }
    history["tested"] = sorted(
        {row["trial"] for row in ledger.rows.values() if row.get("trial") is not None and not untested(row)}
    )
    history["test_acc"] = asdict(mean_of(measured)) if measured else None
    return history


def write_history(out: Path, history: Mapping[str, Any]) -> None:
    """Write search.json into a study's folder."""
    write_atomically(out / HISTORY, json.dumps(history, indent=1, allow_nan=False).encode())


def read_history(out: Path) -> dict[str, Any] | None:
    """Read search.json of a study's folder, written when its last run ended; None if there is none."""
    path = out / HISTORY
    try:
        content: dict[str, Any] = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: it cannot be read: {error}; run the study again") from None
    return content
