"""MLflow's client: a new database gets its name when it is complete, and a search goes through its pages."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from raydc.tracking import mlflow_client
from raydc.tracking.mlflow_client import client_of, default_uri, search

pytestmark = pytest.mark.mlflow


def test_a_file_system_without_hard_links_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    made = client_of(default_uri(tmp_path)).create_experiment("study")
    assert client_of(default_uri(tmp_path)).get_experiment(made).name == "study"
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]


def test_a_run_that_begins_while_pages_are_read_doubles_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = client_of(default_uri(tmp_path))
    study = client.create_experiment("study")
    runs = [client.create_run(study, start_time=1000 + n).info.run_id for n in range(4)]
    monkeypatch.setattr(mlflow_client, "PAGE", 2)
    found = search(client, study, "")
    read = [next(found).info.run_id]
    client.create_run(study)
    assert read + [run.info.run_id for run in found] == runs[::-1]
