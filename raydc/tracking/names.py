"""How MLflow shows an evaluation: the name of its run, and values as the text of parameters."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from raydc.files.plain_json import parse_json
from raydc.spec.result import Row, is_spec_column

LONGEST_NAME = 250
_FIRST = ("images.method", "images.ipc", "labels.kind")
"""What every name begins with."""
_SHORT = {
    "images.method": "{}",
    "images.ipc": "ipc {}",
    "labels.kind": "{}",
    "labels.teacher_epoch": "epoch {}",
    "labels.temperature": "T{}",
    "student.arch": "{}",
    "train.recipe": "{}",
}
_TEXTS = {"True": True, "False": False, "None": None, "null": None}
"""What others' parameters say when Python wrote them."""


def run_name(row: Row, varying: Sequence[str] = ()) -> str:
    """`el2n ipc 10 soft epoch 30 T4 seed 0`: what tells this evaluation from the others of its study.

    `varying` are the keys that tell the study's configurations apart.
    """
    parts = []
    for key in dict.fromkeys((*_FIRST, *varying)):
        value = row.get(key)
        if value is not None:
            text = f"{value:g}" if isinstance(value, float) else str(value)
            parts.append(_SHORT.get(key, f"{key.rpartition('.')[2]} {{}}").format(text))
    return " ".join([*parts, f"seed {row['seed']}"])[:LONGEST_NAME]


def params(row: Row) -> dict[str, str]:
    """The parameters of a row's run: its seed and every spec key that applies."""
    spec = {key: text(v) for key, v in row.items() if is_spec_column(key) and v is not None}
    return {"seed": str(row["seed"]), **spec}


def table_view(varying: Sequence[str]) -> dict[str, Any]:
    """The state of MLflow's runs page that shows a study's evaluations, the best first.

    Its keys are those of MLflow's `ExperimentPageUIState` and `ExperimentPageSearchFacetsState`.
    """
    shown = [f"params.`{key}`" for key in dict.fromkeys((*_FIRST, *varying, "seed"))]
    return {
        "searchFilter": "tags.`raydc.evaluation_id` != ''",
        "orderByKey": "metrics.`val_acc`",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": ["metrics.`test_acc`", "metrics.`val_acc`", *shown],
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "groupBy": None,
        "groupsExpanded": {},
        "hideEmptyCharts": True,
    }


def text(value: Any) -> str:
    """A value as a parameter says it; `value_of` reads it back."""
    return value if isinstance(value, str) else json.dumps(value)


def value_of(said: str) -> Any:
    """The value that a parameter says, also as Python's `str` writes it."""
    if said in _TEXTS:
        return _TEXTS[said]
    try:
        return parse_json(said)
    except ValueError:
        return said
