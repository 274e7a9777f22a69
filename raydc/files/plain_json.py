"""Strict JSON: finite numbers and limited nesting."""

from __future__ import annotations

import json
import math
from typing import Any

MOST_LEVELS = 100


def parse_json(text: str | bytes) -> Any:
    """The value that `text` holds; raises `ValueError` for invalid JSON, NaN, 1e999 and too deep nesting."""
    try:
        value = json.loads(text, parse_float=_finite, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    level = [value]
    for _ in range(MOST_LEVELS):
        level = [part for container in level for part in _parts(container) if isinstance(part, dict | list)]
        if not level:
            return value
    raise ValueError(f"it is nested too deeply (at most {MOST_LEVELS} levels)")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text[:40]} is too large for a number")
    return number


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not valid JSON")


def _parts(value: Any) -> Any:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
