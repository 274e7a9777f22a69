"""Rows in MLflow: complete, without doubles, and up to date again after an outage."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from benchmarks.mlflow_server import Server
from raydc.errors import TrackingError
from raydc.tracking import mlflow_writer
from raydc.tracking.mlflow_client import default_uri
from raydc.tracking.mlflow_record import read_experiment
from raydc.tracking.mlflow_tracker import MlflowTracker
from raydc.tracking.mlflow_transaction import sqlite_store
from raydc.tracking.run_ids import note_run, run_ids
from tests.tracking.record import children, row

pytestmark = pytest.mark.mlflow


def test_rows_come_back_as_they_were(tracker: Callable[[], MlflowTracker], tmp_path: Path) -> None:
    one = tracker()
    given = [row("a"), row("b", "failed"), row("c", reused_from="other")]
    one.record(given)
    assert one.close("failed", 60) == 0
    read = {r["evaluation_id"]: r for r in read_experiment("s", default_uri(tmp_path))}
    assert set(read) == {"a", "b"}  # what another study made is in its own record
    for key in ("study", "seed", "status", "images.ipc", "labels.temperature", "train.augment", "dataset.zca",
                "test_acc", "val_acc", "test_acc_by_class", "images_bytes", "steps", "started_at",
                "protocol_version", "error", "device"):  # fmt: skip
        assert read["a"].get(key) == given[0][key], key
        assert read["b"].get(key) == given[1][key], key
    assert run_ids(tmp_path) == {name: r["mlflow_run_id"] for name, r in read.items()}


def test_a_run_whose_answer_was_lost_is_not_made_twice(
    tracker: Callable[[], MlflowTracker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = tracker()
    create, lost = one.client.create_run, []

    def heard_but_not_answered(*given: Any, **named: Any) -> Any:
        made = create(*given, **named)
        if not lost:
            lost.append(made)
            raise requests.ReadTimeout("no answer")
        return made

    monkeypatch.setattr(one.writer.client, "create_run", heard_but_not_answered)
    monkeypatch.setattr(one.writer, "sqlite", None)  # as with a server, which keeps what it was asked
    one.record([row("a"), row("b")])
    assert one.close("finished", 60) == 0
    assert sorted(r.data.tags["raydc.evaluation_id"] for r in children(default_uri(tmp_path))) == ["a", "b"]
    assert lost[0].info.run_id in {r.info.run_id for r in children(default_uri(tmp_path))}


def test_a_row_that_is_refused_among_others_costs_the_others_nothing(
    tracker: Callable[[], MlflowTracker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = tracker()
    write, tried = one.writer._write, []

    def refusing(given: dict[str, Any]) -> None:
        tried.append(given["evaluation_id"])
        write(given)
        if given["evaluation_id"] == "c":
            raise MlflowException("not this one", INVALID_PARAMETER_VALUE)

    monkeypatch.setattr(one.writer, "_write", refusing)
    store = sqlite_store(one.client)
    assert store is not None
    waiting = deque(row(name) for name in "abcd")
    assert [r["evaluation_id"] for r in one.writer._write_together(store, waiting)] == ["a", "b", "c"]
    assert children(default_uri(tmp_path)) == []
    one.record([row(name) for name in "abcd"])
    assert one.close("finished", 60) == 1
    assert tried.count("d") <= 2
    found = {r.data.tags["raydc.evaluation_id"]: r.info.run_id for r in children(default_uri(tmp_path))}
    assert sorted(r.data.tags["raydc.evaluation_id"] for r in children(default_uri(tmp_path))) == [*"abcd"]
    assert run_ids(tmp_path) == {name: found[name] for name in "abd"}


def test_a_row_that_the_database_cannot_hold_stops_no_other(
    tracker: Callable[[], MlflowTracker], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = tracker()
    one.record([row("a"), row("b", started_at=1e17), row("c", error="\ud800"), row("d")])
    assert one.close("finished", 60) == 2
    assert "MLflow rejects b" in caplog.text
    assert "MLflow rejects c" in caplog.text
    assert sorted(run_ids(tmp_path)) == ["a", "d"]


def test_a_note_that_finds_no_space_is_made_later(
    tracker: Callable[[], MlflowTracker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = tracker()
    failures: list[str] = []

    def note(folder: Path, name: str, run_id: str) -> None:
        if len(failures) < 2:
            failures.append(name)
            raise OSError(28, "No space left on device")
        note_run(folder, name, run_id)

    monkeypatch.setattr(mlflow_writer, "note_run", note)
    one.record([row(name) for name in "abc"])
    assert one.close("finished", 60) == 0
    found = {r.data.tags["raydc.evaluation_id"]: r.info.run_id for r in children(default_uri(tmp_path))}
    assert len(failures) == 2
    assert run_ids(tmp_path) == found
    assert len(children(default_uri(tmp_path))) == 3


def test_transactions_that_never_work_are_given_up(
    tracker: Callable[[], MlflowTracker],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    @contextmanager
    def broken(_: object) -> Iterator[None]:
        yield
        raise TypeError("another MLflow")

    monkeypatch.setattr(mlflow_writer, "one_transaction", broken)
    monkeypatch.setattr(mlflow_writer, "TURN_SECONDS", 0.0)
    one = tracker()
    one.record([row(name) for name in "abcdef"])
    assert one.close("finished", 60) == 0
    assert len(children(default_uri(tmp_path))) == 6
    assert caplog.text.count("(another MLflow); they are written one by one") == 1


def test_a_row_and_its_successor_are_written_in_order(
    tracker: Callable[[], MlflowTracker], tmp_path: Path
) -> None:
    one = tracker()
    one.record([row("a", "failed"), row("a"), row("b")])
    assert one.close("finished", 60) == 0
    a = next(r for r in children(default_uri(tmp_path)) if r.data.tags["raydc.evaluation_id"] == "a")
    assert a.info.status == "FINISHED"
    assert "raydc.error" not in a.data.tags
    assert len(children(default_uri(tmp_path))) == 2


def test_who_else_writes_gets_in_between(tracker: Callable[[], MlflowTracker]) -> None:
    one = tracker()
    one.record([row(str(number)) for number in range(200)])
    while one.writer.pending == 200:
        time.sleep(0.01)
    one.describe({"finished": 1.0})
    assert one.writer.pending > 0, "it waited for all of them"
    assert one.close("finished", 60) == 0
    assert one.client.get_run(one.parent_id).data.metrics["finished"] == 1.0


def test_tests_by_epoch_are_a_curve(tracker: Callable[[], MlflowTracker], tmp_path: Path) -> None:
    uri, looks = default_uri(tmp_path), [round(n / 2000, 6) for n in range(1500)]
    one = tracker()
    one.record([row("a", **{"train.test_every": 2, "test_acc_by_epoch": looks})])
    one.record([row("b", **{"train.test_every": 100, "test_acc_by_epoch": [0.25, 0.5]})])
    assert one.close("finished", 60) == 0
    runs = {r.data.tags["raydc.evaluation_id"]: r for r in children(uri)}
    curves = {
        name: {
            m.step: m.value
            for m in MlflowClient(uri).get_metric_history(run.info.run_id, "test_acc_by_epoch")
        }
        for name, run in runs.items()
    }
    assert curves["a"] == dict(zip(range(2, 3001, 2), looks, strict=True))
    assert curves["b"] == {100: 0.25, 200: 0.5}
    (back,) = [r for r in read_experiment("s", uri) if r["evaluation_id"] == "b"]
    assert back["test_acc_by_epoch"] == [0.25, 0.5]


def test_a_server_that_answers_is_waited_for(
    tracker: Callable[[], MlflowTracker], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = tracker()
    write = one.writer._write
    monkeypatch.setattr(one.writer, "_write", lambda given: (time.sleep(0.3), write(given)))
    one.record([row(str(number)) for number in range(8)])
    assert one.close("finished", 1.0) == 0


def test_recording_again_changes_nothing(tracker: Callable[[], MlflowTracker], tmp_path: Path) -> None:
    for _ in range(2):
        one = tracker()
        one.record([row("a"), row("b")])
        assert one.close("finished", 60) == 0
    found = children(default_uri(tmp_path))
    assert sorted(r.data.tags["raydc.evaluation_id"] for r in found) == ["a", "b"]
    client = MlflowClient(default_uri(tmp_path))
    assert len(client.get_metric_history(found[0].info.run_id, "test_acc")) == 1
    parents = client.search_runs([found[0].info.experiment_id], "tags.`raydc.role` = 'study'")
    assert [p.info.status for p in parents] == ["FINISHED"]
    assert {r.data.tags["mlflow.parentRunId"] for r in found} == {parents[0].info.run_id}


def test_a_run_that_a_kill_left_open_is_completed(
    tracker: Callable[[], MlflowTracker], tmp_path: Path
) -> None:
    first = tracker()
    first.client.create_run(first.experiment_id, tags=first.writer._tags(row("a")))
    first.close("stopped", 60)
    again = tracker()
    again.record([row("a")])
    assert again.close("finished", 60) == 0
    (found,) = children(default_uri(tmp_path))
    assert found.info.status == "FINISHED"
    assert found.data.metrics["test_acc"] == 0.625
    assert found.data.params["images.ipc"] == "10"


def test_a_failed_evaluation_that_succeeds_later_keeps_one_run(
    tracker: Callable[[], MlflowTracker], tmp_path: Path
) -> None:
    for status in ("failed", "finished"):
        one = tracker()
        one.record([row("a", status)])
        one.close("finished", 60)
    (found,) = children(default_uri(tmp_path))
    assert found.info.status == "FINISHED"
    assert "raydc.error" not in found.data.tags


class Broken(BaseHTTPRequestHandler):
    """Answers every request with an error of the server's own."""

    code = 503

    def do_GET(self) -> None:
        self.send_error(self.code)

    def do_POST(self) -> None:
        self.send_error(self.code)

    def log_message(self, *_: object) -> None:
        return


@pytest.mark.parametrize("code", [500, 502, 503, 504, 429])
def test_a_server_that_answers_with_errors_is_waited_for(
    tracker: Callable[[], MlflowTracker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(Broken, "code", code)
    one = tracker()
    monkeypatch.setattr(one.writer, "sqlite", None)  # as with a server
    sound, refused = one.client, one.writer._write
    tries: list[str] = []

    def write(given: dict[str, Any]) -> None:
        tries.append(given["evaluation_id"])
        try:
            refused(given)
        finally:
            one.writer.client = sound  # the server is well again

    monkeypatch.setattr(one.writer, "_write", write)
    with ThreadingHTTPServer(("127.0.0.1", 0), Broken) as broken:
        threading.Thread(target=broken.serve_forever, daemon=True).start()
        one.writer.uri = f"http://127.0.0.1:{broken.server_port}"
        one.writer.client = MlflowClient(one.writer.uri)
        one.record([row("a"), row("b")])
        assert one.close("finished", 60) == 0
        broken.shutdown()
    assert tries == ["a", "a", "b"]
    assert sorted(r.data.tags["raydc.evaluation_id"] for r in children(default_uri(tmp_path))) == ["a", "b"]


@pytest.mark.slow
def test_an_outage_costs_nothing_but_time(server: Server, tmp_path: Path) -> None:
    one = MlflowTracker(server.uri, "s", tmp_path)
    one.start()
    one.record([row("before")])
    while one.writer.pending:
        time.sleep(0.1)
    server.stop()
    one.record([row("during"), row("during too")])
    time.sleep(3)
    assert one.writer.pending == 2
    server.start()
    server.wait()
    one.record([row("after")])
    assert one.close("finished", 120) == 0
    names = [r.data.tags["raydc.evaluation_id"] for r in children(server.uri)]
    assert sorted(names) == ["after", "before", "during", "during too"]
    server.stop()
    late = MlflowTracker(server.uri, "s", tmp_path)
    with pytest.raises(TrackingError):
        late.start()
