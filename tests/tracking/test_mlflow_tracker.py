"""MLflow: complete, without doubles, and up to date again after an outage."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
from mlflow import MlflowClient

from benchmarks.mlflow_server import Server
from raydc.errors import InputError, TrackingError
from raydc.tracking.mlflow_client import default_uri
from raydc.tracking.mlflow_ids import run_ids
from raydc.tracking.mlflow_record import read_experiment
from raydc.tracking.mlflow_tracker import MlflowTracker
from raydc.tracking.names import run_name, text, value_of
from raydc.tracking.reach import probe
from raydc.tracking.tracker import TeacherCurve, UsedDataset

pytestmark = pytest.mark.mlflow


def row(name: str, status: str = "finished", **values: Any) -> dict[str, Any]:
    return {
        "evaluation_id": name,
        "study": "s",
        "seed": 1,
        "status": status,
        "images.method": "random",
        "images.ipc": 10,
        "labels.kind": "soft",
        "labels.temperature": 4.0,
        "train.augment": "none",
        "dataset.zca": False,
        "test_acc": 0.625 if status == "finished" else None,
        "val_acc": 0.5,
        "test_acc_by_class": [0.5, None, 1.0],
        "images_bytes": 1234,
        "steps": 50,
        "device": "cpu",
        "attempts": 1,
        "started_at": 1000.25,
        "finished_at": 1002.5,
        "protocol_version": 1,
        "error": None if status == "finished" else "EvaluationError: no <b>luck</b>",
        **values,
    }


def children(uri: str) -> list[Any]:
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("s")
    return [r for r in client.search_runs([experiment.experiment_id]) if "raydc.evaluation_id" in r.data.tags]


@pytest.fixture
def tracker(tmp_path: Path) -> Callable[[], MlflowTracker]:
    def make() -> MlflowTracker:
        made = MlflowTracker(default_uri(tmp_path), "s", tmp_path)
        made.start()
        return made

    return make


def test_rows_come_back_as_they_were(tracker: Callable[[], MlflowTracker], tmp_path: Path) -> None:
    one = tracker()
    given = [row("a"), row("b", "failed"), row("c", reused_from="other")]
    one.record(given)
    assert one.close("FAILED", 60) == 0
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

    monkeypatch.setattr(one.client, "create_run", heard_but_not_answered)
    one.record([row("a"), row("b")])
    assert one.close("FINISHED", 60) == 0
    assert sorted(r.data.tags["raydc.evaluation_id"] for r in children(default_uri(tmp_path))) == ["a", "b"]
    assert lost[0].info.run_id in {r.info.run_id for r in children(default_uri(tmp_path))}


def test_tests_by_epoch_are_a_curve(tracker: Callable[[], MlflowTracker], tmp_path: Path) -> None:
    uri, looks = default_uri(tmp_path), [round(n / 2000, 6) for n in range(1500)]
    one = tracker()
    one.record([row("a", **{"train.test_every": 2, "test_acc_by_epoch": looks})])
    one.record([row("b", **{"train.test_every": 100, "test_acc_by_epoch": [0.25, 0.5]})])
    assert one.close("FINISHED", 60) == 0
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
    write = one._write
    monkeypatch.setattr(one, "_write", lambda given: (time.sleep(0.3), write(given)))
    one.record([row(str(number)) for number in range(8)])
    assert one.close("FINISHED", 1.0) == 0


def test_recording_again_changes_nothing(tracker: Callable[[], MlflowTracker], tmp_path: Path) -> None:
    for _ in range(2):
        one = tracker()
        one.record([row("a"), row("b")])
        assert one.close("FINISHED", 60) == 0
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
    first.client.create_run(first.experiment_id, tags=first._tags(row("a")))
    first.close("KILLED", 60)
    again = tracker()
    again.record([row("a")])
    assert again.close("FINISHED", 60) == 0
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
        one.close("FINISHED", 60)
    (found,) = children(default_uri(tmp_path))
    assert found.info.status == "FINISHED"
    assert "raydc.error" not in found.data.tags


def test_the_study_has_its_data_its_teachers_and_its_files(
    tracker: Callable[[], MlflowTracker], tmp_path: Path
) -> None:
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "a.png").write_bytes(b"picture")
    curve = TeacherCurve("t1", "teacher", {"teacher.arch": "x"}, ((1, "val_acc", 0.5), (2, "val_acc", 0.75)))
    for _ in range(2):
        one = tracker()
        one.used(UsedDataset("digits", "0123", "digits", {"train": 10}))
        one.teachers([curve])
        one.attach([tmp_path / "figures", tmp_path / "absent.txt"])
        one.attach_text("x==1", "environment.txt")
        one.describe({"finished": 2}, {"mlflow.note.content": "read me"})
        assert one.close("FINISHED", 60) == 0
    client, parent = one.client, one.client.get_run(one.parent_id)
    assert [d.dataset.name for d in parent.inputs.dataset_inputs] == ["digits"]
    assert parent.data.tags["mlflow.note.content"] == "read me"
    assert [f.path for f in client.list_artifacts(one.parent_id)] == ["environment.txt", "figures"]
    assert [f.path for f in client.list_artifacts(one.parent_id, "figures")] == ["figures/a.png"]
    (teacher,) = client.search_runs([one.experiment_id], "tags.`raydc.role` = 'teacher'")
    assert teacher.data.params == {"teacher.arch": "x"}
    history = client.get_metric_history(teacher.info.run_id, "val_acc")
    assert [(m.step, m.value) for m in history] == [(1, 0.5), (2, 0.75)]
    assert read_experiment("s", default_uri(tmp_path)) == []


def test_system_metrics_are_sampled_on_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")
    one = MlflowTracker(default_uri(tmp_path), "s", tmp_path, system_metrics=True)
    one.start()
    for _ in range(100):
        if "system/cpu_utilization_percentage" in one.client.get_run(one.parent_id).data.metrics:
            break
        time.sleep(0.2)
    else:
        raise AssertionError("nothing was sampled")
    assert one.close("FINISHED", 60) == 0


def test_runs_are_named_by_what_varies() -> None:
    given = row("a", **{"labels.teacher_epoch": 30, "train.steps": 50})
    assert run_name(given) == "random ipc 10 soft seed 1"
    varying = ("images.ipc", "labels.teacher_epoch", "labels.temperature", "train.steps")
    assert run_name(given, varying) == "random ipc 10 soft epoch 30 T4 steps 50 seed 1"


def test_the_runs_page_has_the_keys_that_vary_as_columns(tmp_path: Path) -> None:
    one = MlflowTracker(default_uri(tmp_path), "s", tmp_path, varying=["train.steps"])
    one.start()
    one.close("FINISHED", 60)
    tags = one.client.get_experiment(one.experiment_id).tags
    view = json.loads(tags["mlflow.sharedViewState.raydc"])
    assert {"metrics.`test_acc`", "params.`train.steps`", "params.`seed`"} <= set(view["selectedColumns"])
    assert f"#/experiments/{one.experiment_id}/runs?viewStateShareKey=raydc" in tags["mlflow.note.content"]


def test_parameters_that_python_wrote_are_read() -> None:
    given = (True, None, 4, 0.5, [1, 2], "none", "el2n")
    assert [value_of(str(value)) for value in given] == list(given)
    assert [value_of(text(value)) for value in given] == list(given)


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match="does not answer"):
        probe("http://127.0.0.1:9")
    with pytest.raises(TrackingError, match="does not answer"):
        MlflowTracker("http://127.0.0.1:9", "s", tmp_path).start()
    with pytest.raises(InputError, match="there is no MLflow experiment 'x'"):
        read_experiment("x", default_uri(tmp_path))


@pytest.mark.tmpfs
def test_a_disk_that_is_full_when_the_record_begins_leaves_no_half_of_it(
    small_disk: Callable[[str], Path],
) -> None:
    disk = small_disk("300k")
    with pytest.raises(TrackingError, match="database or disk is full"):
        MlflowTracker(default_uri(disk), "s", disk).start()
    assert list(disk.iterdir()) == []
    subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
    one = MlflowTracker(default_uri(disk), "s", disk)
    one.start()
    one.record([row("a")])
    assert one.close("FINISHED", 60) == 0


@pytest.mark.slow
def test_a_kill_while_the_record_begins_leaves_no_half_of_it(tmp_path: Path) -> None:
    script = (
        "from pathlib import Path; from raydc.tracking.mlflow_tracker import MlflowTracker; import sys; "
        "print('begun', flush=True); "
        "MlflowTracker(sys.argv[1], 's', Path(sys.argv[2])).start()"
    )
    arguments = [default_uri(tmp_path), str(tmp_path)]
    with subprocess.Popen([sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE) as killed:
        assert killed.stdout is not None
        killed.stdout.readline()
        # The journal beside it comes and goes.
        while killed.poll() is None and not any(
            path.stat().st_size > 50_000
            for path in tmp_path.glob(".mlflow.db.*")
            if not path.name.endswith("-journal")
        ):
            time.sleep(0.001)
        killed.kill()
    left = [path.name for path in tmp_path.iterdir()]
    assert left
    assert "mlflow.db" not in left
    one = MlflowTracker(default_uri(tmp_path), "s", tmp_path)
    one.start()
    one.record([row("a")])
    assert one.close("FINISHED", 60) == 0
    assert not set(left) & {path.name for path in tmp_path.iterdir()}


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
    sound, refused = one.client, one._write
    tries: list[str] = []

    def write(given: dict[str, Any]) -> None:
        tries.append(given["evaluation_id"])
        try:
            refused(given)
        finally:
            one.client = sound  # the server is well again

    monkeypatch.setattr(one, "_write", write)
    with ThreadingHTTPServer(("127.0.0.1", 0), Broken) as broken:
        threading.Thread(target=broken.serve_forever, daemon=True).start()
        one.client = MlflowClient(f"http://127.0.0.1:{broken.server_port}")
        one.record([row("a"), row("b")])
        assert one.close("FINISHED", 60) == 0
        broken.shutdown()
    assert tries == ["a", "a", "b"]
    assert sorted(r.data.tags["raydc.evaluation_id"] for r in children(default_uri(tmp_path))) == ["a", "b"]


@pytest.mark.slow
def test_an_outage_costs_nothing_but_time(server: Server, tmp_path: Path) -> None:
    one = MlflowTracker(server.uri, "s", tmp_path)
    one.start()
    one.record([row("before")])
    while one._pending:
        time.sleep(0.1)
    server.stop()
    one.record([row("during"), row("during too")])
    time.sleep(3)
    assert one._pending == 2
    server.start()
    server.wait()
    one.record([row("after")])
    assert one.close("FINISHED", 120) == 0
    names = [r.data.tags["raydc.evaluation_id"] for r in children(server.uri)]
    assert sorted(names) == ["after", "before", "during", "during too"]
    server.stop()
    late = MlflowTracker(server.uri, "s", tmp_path)
    with pytest.raises(TrackingError):
        late.start()
