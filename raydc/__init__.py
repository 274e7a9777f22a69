"""raydc: dataset distillation and pruning experiments at scale."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_EXPORTS = {
    "Study": "raydc.study.api",
    "figures": "raydc.study.reporting",
    "results": "raydc.study.reporting",
}
__all__ = ["Study", "__version__", "figures", "results"]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module 'raydc' has no attribute {name!r}")
