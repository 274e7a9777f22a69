"""Rows as the parameters of MLflow's runs: every value is text, and is read back as it was."""

from __future__ import annotations

import json
from typing import Any

from raydc.files.plain_json import parse_json
from raydc.spec.result import Row, is_spec_column

_TEXTS = {"True": True, "False": False, "None": None, "null": None}
"""What others' parameters say when Python wrote them."""


def params(row: Row) -> dict[str, str]:
    """The parameters of a row's run: its seed and every spec key that applies."""
    spec = {key: text(v) for key, v in row.items() if is_spec_column(key) and v is not None}
    return {"seed": str(row["seed"]), **spec}


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
