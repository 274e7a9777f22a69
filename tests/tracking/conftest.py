"""A study's record in MLflow's SQLite."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from raydc.tracking.mlflow_client import default_uri
from raydc.tracking.mlflow_tracker import MlflowTracker


@pytest.fixture
def tracker(tmp_path: Path) -> Callable[[], MlflowTracker]:
    def make() -> MlflowTracker:
        made = MlflowTracker(default_uri(tmp_path), "s", tmp_path)
        made.start()
        return made

    return make
