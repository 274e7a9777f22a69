"""Conversion of rows to parameters of MLflow runs, which are strings, and back."""

from __future__ import annotations

import json
from typing import Any

from raydc.files.plain_json import parse_json
from raydc.spec.result import Row, is_spec_column

_TEXTS = {"True": True, "False": False, "None": None, "null": None}
"""Values of parameters that were logged with Python's `str`."""


def params(row: Row) -> dict[str, str]:
    """The parameters of a row's run: its seed and every spec key that applies."""
    spec = {key: text(v) for key, v in row.items() if is_spec_column(key) and v is not None}
    return {"seed": str(row["seed"]), **spec}


def text(value: Any) -> str:
    """A value as the text of a parameter; `value_of` is the inverse."""
    return value if isinstance(value, str) else json.dumps(value)


def value_of(parameter: str) -> Any:
    """The value of a parameter, also if it was written with Python's `str`."""
    if parameter in _TEXTS:
        return _TEXTS[parameter]
    try:
        return parse_json(parameter)
    except ValueError:
        return parameter
