"""A new database gets its name when it is complete, on any file system."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from raydc.tracking.mlflow_client import client_of, default_uri

pytestmark = pytest.mark.mlflow


def test_a_file_system_without_hard_links_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    made = client_of(default_uri(tmp_path)).create_experiment("study")
    assert client_of(default_uri(tmp_path)).get_experiment(made).name == "study"
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]
