"""A study's record in MLflow's SQLite."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from raydc.tracking.mlflow_tracker import MlflowTracker


@pytest.fixture
def tracker(tmp_path: Path, mlflow_file: Callable[[Path], str]) -> Callable[[], MlflowTracker]:
    from raydc.tracking.mlflow_tracker import MlflowTracker

    def make() -> MlflowTracker:
        made = MlflowTracker(mlflow_file(tmp_path), "s", tmp_path)
        made.start()
        return made

    return make
