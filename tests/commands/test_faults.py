"""Faults that a whole run meets: students that hang, disks that fill up, a tracking server that goes away."""

from __future__ import annotations

import errno
import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.mlflow_server import Server
from raydc.tracking.ledger import read_rows
from tests.shell import Shell
from tests.tracking.record import children

pytestmark = [pytest.mark.command, pytest.mark.ray, pytest.mark.slow]

HANGING = '''
"""hanging: labels that never come, for one set of images; first_time: those that come at the second try."""
import os
import time
from pathlib import Path

from raydc.labels.kinds import LabelInputs, LabelOutputs, hard
from raydc.spec.catalog import LABELS, LabelKind


def hanging(inputs: LabelInputs) -> LabelOutputs:
    while True:
        time.sleep(60)


def first_time(inputs: LabelInputs) -> LabelOutputs:
    been_here = Path(os.environ["BEEN_HERE"])
    if not been_here.exists():
        been_here.touch()
        hanging(inputs)
    return hard(inputs)


LABELS.add(LabelKind("hanging", "hanging:hanging", "never", soft=False))
LABELS.add(LabelKind("first_time", "hanging:first_time", "at the second try", soft=False))
'''


BREAKING = '''
"""Workers of students cannot be set up where this was loaded."""
from raydc.orchestration import trainable


def attempt_all(*given: object, **named: object) -> None:
    raise RuntimeError("no kernel image")


trainable.attempt_all = attempt_all
'''


def test_of_what_workers_died_is_said(make_shell: Callable[[], Shell]) -> None:
    shell = make_shell()
    (shell.folder / "breaking.py").write_text(BREAKING)
    settings = ("grid={}", "seeds=2", "resources={workers: 1, retries: 1}")
    options = [option for setting in settings for option in ("--set", setting)]
    arguments = ("run", "tiny.yaml", "--out", "out", "--no-report", *options)
    assert "2 failed" in shell.process("--plugin", "breaking.py", *arguments, code=3).stdout
    died = "WorkerDied: its worker process died 2 times, the last time with RuntimeError: no kernel image"
    rows = read_rows(shell.folder / "out").values()
    assert [(row["error"], row["attempts"]) for row in rows] == [(died, 2)] * 2


def test_a_student_that_hangs_is_ended_and_the_others_go_on(make_shell: Callable[[], Shell]) -> None:
    shell = make_shell()
    shell.environment["BEEN_HERE"] = str(shell.folder / "been-here")
    (shell.folder / "hanging.py").write_text(HANGING)
    settings = {
        "grid": "{labels.kind: [hard, hanging, first_time]}",
        "seeds": "1",
        "resources": "{workers: 1, retries: 1, evaluation_timeout_seconds: 8}",
    }
    options = [option for key, value in settings.items() for option in ("--set", f"{key}={value}")]
    arguments = ("run", "tiny.yaml", "--out", "out", "--no-report", *options)
    said = shell.process("--plugin", "hanging.py", *arguments, code=3)
    assert "2 of 3 evaluations finished, 1 failed" in said.stdout
    assert "Traceback" not in said.stdout + said.stderr
    rows = {row["labels.kind"]: row for row in read_rows(shell.folder / "out").values()}
    assert (rows["hard"]["status"], rows["hard"]["attempts"]) == ("finished", 1)
    assert (rows["first_time"]["status"], rows["first_time"]["attempts"]) == ("finished", 2)
    assert (rows["hanging"]["status"], rows["hanging"]["attempts"]) == ("failed", 2)
    assert re.fullmatch(
        r"WorkerDied: its worker process died 2 times, the last time \d+ s after it was given the "
        r"evaluation, whose time limit is 8 s \(resources.evaluation_timeout_seconds\)",
        rows["hanging"]["error"],
    )


class Filler:
    """A file that takes all the space of a disk but some."""

    def __init__(self, disk: Path) -> None:
        self._disk = disk
        self._file = disk / "filler"

    def fill(self, but_bytes: int = 0) -> None:
        with self._file.open("ab", buffering=0) as file:
            try:
                while True:  # others write to the disk as well
                    file.write(bytes(4096))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
            file.truncate(max(0, file.tell() - but_bytes))

    def free(self) -> None:
        self._file.unlink()


@pytest.mark.tmpfs
def test_a_full_store_fails_what_it_has_no_room_for(
    make_shell: Callable[[], Shell], small_disk: Callable[[str], Path], ray_cluster: object
) -> None:
    shell = make_shell()
    disk = small_disk("2m")
    shell.environment["RAYDC_STORE"] = str(disk / "store")
    filler = Filler(disk)
    filler.fill()
    refused = shell("run", "tiny.yaml", "--out", "out", code=2)
    assert "error: the store" in refused.stderr
    assert "cannot be written (No space left on device); make space there" in refused.stderr
    # Room for the dataset and its statistics, not for the teacher's checkpoints; hard labels need none.
    filler.free()
    shell("run", "tiny.yaml", "--out", "first", "--no-report", "--set", "grid={labels.kind: [hard]}")
    filler.fill(but_bytes=100_000)
    said = shell.process("run", "tiny.yaml", "--out", "out", "--no-report", code=3)
    assert "Traceback" not in said.stdout + said.stderr
    rows = read_rows(shell.folder / "out").values()
    failed = [row for row in rows if row["status"] == "failed"]
    assert failed
    assert all("cannot be written (No space left on device)" in row["error"] for row in failed)
    assert not list(disk.glob("store/*/.draft-*"))
    filler.free()
    again = shell("run", "tiny.yaml", "--out", "out", "--no-report").stdout
    assert "24 of 24 evaluations finished" in again
    finished = 24 - len(failed)
    assert f"{finished} finished before" in again or "reused" in again


@pytest.mark.tmpfs
def test_a_full_disk_under_the_ledger_ends_the_run_and_loses_nothing(
    make_shell: Callable[[], Shell], small_disk: Callable[[str], Path], ray_cluster: object
) -> None:
    shell = make_shell()
    disk = small_disk("8m")
    filler = Filler(disk)
    out = disk / "out"
    options = ("--out", str(out), "--no-report", "--set", "base.train.steps=150")
    process = shell.start("run", "tiny.yaml", *options)
    ledger = out / "ledger.jsonl"
    while process.poll() is None and not (ledger.exists() and ledger.read_bytes().count(b"\n") >= 3):
        time.sleep(0.02)
    filler.fill()
    said, err = process.communicate(timeout=300)
    assert process.returncode == 3, said + err
    assert "Traceback" not in said + err
    assert re.search(r"stopped: the study's folder '.*' cannot be written \(No space left on device\)", said)
    assert "` resumes it" in said
    kept = read_rows(out)
    assert 3 <= len(kept) < 24
    assert ledger.read_bytes().endswith(b"\n")
    filler.free()
    again = shell("run", "tiny.yaml", *options).stdout
    assert "24 of 24 evaluations finished" in again
    assert f"{24 - len(kept)} run now, {len(kept)} finished before" in again
    lines = [json.loads(line)["evaluation_id"] for line in ledger.read_text().splitlines()]
    assert len(lines) == len(set(lines)) == 24


@pytest.mark.mlflow
def test_a_tracking_server_that_goes_away_leaves_the_study_behind_until_the_next_run(
    make_shell: Callable[[], Shell], server: Server
) -> None:
    shell = make_shell()
    options = ("--out", "out", "--no-report", "--tracking-uri", server.uri, "--set", "name=s")
    process = shell.start("run", "tiny.yaml", *options)
    ledger = shell.folder / "out" / "ledger.jsonl"
    while process.poll() is None and not (ledger.exists() and ledger.stat().st_size):
        time.sleep(0.02)
    server.stop()
    said, err = process.communicate(timeout=500)
    assert process.returncode == 4, said + err
    assert "Traceback" not in said + err
    assert "24 of 24 evaluations finished" in said
    lacking = re.search(r"(\d+) results are missing in MLflow; `raydc sync out` writes them", said)
    assert lacking is not None
    assert int(lacking[1]) > 0
    # Begun again while it is still away: nothing to train, and still behind.
    assert "0 run now, 24 finished before" in shell("run", "tiny.yaml", *options, code=4).stdout
    server.start()
    server.wait()
    assert "0 run now, 24 finished before" in shell("run", "tiny.yaml", *options).stdout
    recorded = [run.data.tags["raydc.evaluation_id"] for run in children(server.uri)]
    assert sorted(recorded) == sorted(read_rows(shell.folder / "out"))
