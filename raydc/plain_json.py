"""JSON as everything here writes it: finite numbers, nested within reason."""

from __future__ import annotations

import json
from typing import Any

MOST_LEVELS = 100


def parse_json(text: str | bytes) -> Any:
    """The value that `text` holds; `ValueError` for anything else, NaN and bottomless nesting included."""
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    level = [value]
    for _ in range(MOST_LEVELS):
        level = [part for container in level for part in _parts(container) if isinstance(part, dict | list)]
        if not level:
            return value
    raise ValueError(f"it is nested too deeply (at most {MOST_LEVELS} levels)")


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _parts(value: Any) -> Any:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
