"""A study in MLflow: its data, its teachers, its files, and its page."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from raydc.errors import InputError, TrackingError
from raydc.tracking.mlflow_client import default_uri
from raydc.tracking.mlflow_params import text, value_of
from raydc.tracking.mlflow_record import read_experiment
from raydc.tracking.mlflow_tracker import MlflowTracker
from raydc.tracking.names import run_name
from raydc.tracking.reach import probe
from raydc.tracking.tracker import TeacherCurve, UsedDataset
from tests.tracking.record import row

pytestmark = pytest.mark.mlflow


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
        one.describe({"finished": 2}, "read me")
        assert one.close("finished", 60) == 0
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
    assert one.close("finished", 60) == 0


def test_runs_are_named_by_what_varies() -> None:
    given = row("a", **{"labels.teacher_epoch": 30, "train.steps": 50})
    assert run_name(given) == "random ipc 10 soft seed 1"
    varying = ("images.ipc", "labels.teacher_epoch", "labels.temperature", "train.steps")
    assert run_name(given, varying) == "random ipc 10 soft epoch 30 T4 steps 50 seed 1"


def test_the_runs_page_has_the_keys_that_vary_as_columns(tmp_path: Path) -> None:
    one = MlflowTracker(default_uri(tmp_path), "s", tmp_path, varying=["train.steps"])
    one.start()
    one.close("finished", 60)
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
    assert one.close("finished", 60) == 0


@pytest.mark.command
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
    assert one.close("finished", 60) == 0
    assert not set(left) & {path.name for path in tmp_path.iterdir()}
