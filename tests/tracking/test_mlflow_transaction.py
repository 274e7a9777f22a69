"""Requests to MLflow's SQLite in one transaction: all or none, and nobody else's."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from sqlalchemy import event, text
from sqlalchemy.exc import SQLAlchemyError

from benchmarks.mlflow_server import Server
from raydc.tracking.mlflow_client import client_of
from raydc.tracking.mlflow_transaction import one_transaction, sqlite_store

pytestmark = pytest.mark.mlflow


@pytest.fixture
def client(tmp_path: Path, mlflow_file: Callable[[Path], str]) -> MlflowClient:
    return client_of(mlflow_file(tmp_path))


def write(client: MlflowClient, experiment: str, name: str) -> str:
    """Write a run in three requests; its id."""
    run = client.create_run(experiment, run_name=name, tags={"name": name})
    client.log_batch(run.info.run_id, metrics=[Metric("acc", 0.5, 1, 0)], params=[Param("ipc", "10")])
    client.set_terminated(run.info.run_id)
    return str(run.info.run_id)


def names(client: MlflowClient, experiment: str) -> set[str]:
    return {run.data.tags["name"] for run in client.search_runs([experiment])}


def test_what_is_written_is_what_mlflow_writes(client: MlflowClient) -> None:
    experiment = client.create_experiment("e")
    alone = write(client, experiment, "n")
    with one_transaction(sqlite_store(client)):
        together = write(client, experiment, "n")

    def stored(run_id: str) -> dict[str, Any]:
        run = client.get_run(run_id)
        info = {k: v for k, v in dict(run.info).items() if k not in ("start_time", "end_time")}
        return {**info, **run.data.to_dictionary(), "lasted": run.info.end_time >= run.info.start_time}

    assert str(stored(together)).replace(together, "ID") == str(stored(alone)).replace(alone, "ID")


def test_many_requests_are_one_commit(client: MlflowClient) -> None:
    experiment, store = client.create_experiment("e"), sqlite_store(client)
    commits: list[Any] = []
    with one_transaction(store):
        event.listen(store.engine, "commit", commits.append)
        for name in "abc":
            write(client, experiment, name)
        assert commits == []
    assert len(commits) == 1
    assert names(client, experiment) == {"a", "b", "c"}
    write(client, experiment, "d")
    assert len(commits) > 2  # MLflow's own way again


def test_nothing_of_it_is_kept_when_it_fails(client: MlflowClient) -> None:
    experiment = client.create_experiment("e")

    def failing() -> None:
        with one_transaction(sqlite_store(client)):
            write(client, experiment, "a")
            raise KeyError

    with pytest.raises(KeyError):
        failing()
    assert names(client, experiment) == set()
    write(client, experiment, "b")
    assert names(client, experiment) == {"b"}


def test_what_mlflow_would_take_back_is_taken_back_whole(client: MlflowClient) -> None:
    experiment = client.create_experiment("e")
    run_id = write(client, experiment, "a")
    client.update_run(run_id, status="RUNNING")

    def failing() -> None:
        with one_transaction(sqlite_store(client)):
            write(client, experiment, "b")
            # The metric is there already, for which MLflow rolls back and writes the others.
            client.log_batch(run_id, metrics=[Metric("acc", 0.5, 1, 0), Metric("loss", 1.0, 1, 0)])

    with pytest.raises((MlflowException, SQLAlchemyError)):
        failing()
    assert names(client, experiment) == {"a"}


def test_a_transaction_that_is_taken_back_in_silence_is_said(client: MlflowClient) -> None:
    experiment, store = client.create_experiment("e"), sqlite_store(client)

    def rolled_back() -> None:
        with one_transaction(store):
            write(client, experiment, "a")
            with store.ManagedSessionMaker() as session:
                session.rollback()

    with pytest.raises(MlflowException, match="rolled back"):
        rolled_back()
    assert names(client, experiment) == set()


def test_a_request_sees_what_the_one_before_has_written(client: MlflowClient) -> None:
    experiment = client.create_experiment("e")
    with one_transaction(sqlite_store(client)):
        run_id = write(client, experiment, "a")
        client.update_run(run_id, status="RUNNING")
        client.log_batch(run_id, params=[Param("ipc", "10"), Param("seed", "1")])
        client.set_tag(run_id, "last", "request")
    run = client.get_run(run_id)
    assert run.data.params == {"ipc": "10", "seed": "1"}
    assert run.data.tags["last"] == "request"


def test_its_connection_is_set_as_mlflow_sets_it(client: MlflowClient) -> None:
    store = sqlite_store(client)
    store.engine.dispose()
    with one_transaction(store), store.ManagedSessionMaker() as session:
        assert session.execute(text("PRAGMA busy_timeout")).scalar() == 20000
        assert session.execute(text("PRAGMA foreign_keys")).scalar() == 1


def test_two_threads_take_turns(client: MlflowClient) -> None:
    experiment, store = client.create_experiment("e"), sqlite_store(client)

    def several(name: str) -> None:
        for number in range(5):
            with one_transaction(store):
                write(client, experiment, f"{name}{number}")

    threads = [threading.Thread(target=several, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert names(client, experiment) == {f"{name}{number}" for name in "ab" for number in range(5)}
    write(client, experiment, "c")  # outside, with a session of its own
    assert "c" in names(client, experiment)


def test_other_threads_are_not_part_of_it(client: MlflowClient) -> None:
    experiment = client.create_experiment("e")
    seen: list[set[str]] = []
    with one_transaction(sqlite_store(client)):
        write(client, experiment, "a")
        other = threading.Thread(target=lambda: seen.append(names(client, experiment)))
        other.start()
        other.join()
        assert names(client, experiment) == {"a"}
    assert seen == [set()]


def test_a_server_has_no_transactions(server: Server) -> None:
    assert sqlite_store(MlflowClient(server.uri)) is None
