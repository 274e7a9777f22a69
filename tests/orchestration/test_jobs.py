"""Studies as Ray jobs: what is refused, what is packed, and once a real cluster of two nodes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.processes import free_ports
from raydc.errors import InputError
from raydc.orchestration import jobs
from raydc.spec import plugins
from raydc.spec.study import StudySpec

FAR, HERE = "http://head.lab:8265", "http://127.0.0.1:8265"
SCRIPT = Path(__file__).parents[2] / "cluster" / "local" / "two_nodes.sh"
STUDY = """
name: mini
dataset: digits
base:
  images: {method: random, ipc: 1}
  labels: {kind: hard}
  student: {arch: convnet-d2-w8}
  train: {recipe: label-worth, steps: 5, augment: none, lr: 0.05}
seeds: 2
"""
PLUGIN = """
from raydc.spec.catalog import METHODS, Method


def select(pool):
    return pool.by_class(lambda rows: rows[: pool.ipc])


METHODS.add(Method("first-ones", "brought:select", "the first images of each class"))
"""


@pytest.mark.parametrize(
    ("address", "store", "said"),
    [
        (FAR, None, "no store is given, but every node of http://head.lab:8265 must reach it"),
        (FAR, "/data/store", "--store is '/data/store', a folder of this machine, but every node"),
        (HERE, "s3://key:secret@bucket/x", "--store holds a password"),
        (HERE, "s3://bucket/x?secret_key=abc", "--store holds a password"),
    ],
)
def test_a_store_that_the_cluster_cannot_use(
    small: Callable[..., StudySpec], address: str, store: str | None, said: str
) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        jobs.check(jobs.Job(small().located(None, store)), address)


@pytest.mark.parametrize(
    ("address", "store"),
    [(FAR, "s3://bucket/x"), (FAR, "file:///mnt/store"), (HERE, "/data/store"), (HERE, None)],
)
def test_a_store_that_it_can(small: Callable[..., StudySpec], address: str, store: str | None) -> None:
    jobs.check(jobs.Job(small().located(None, store)), address)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("dataset.parquet=data/cifar", "dataset.parquet is 'data/cifar', a relative path"),
        ("dataset=cifar10", "dataset.root is 'data', a relative path"),
        ("tracking.uri=https://me:secret@lab", "--tracking-uri holds a password"),
    ],
)
def test_a_study_that_means_this_machine(small: Callable[..., StudySpec], setting: str, said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        jobs.check(jobs.Job(small(setting)), HERE)


def test_the_command_of_the_driver_is_safe_for_a_shell(small: Callable[..., StudySpec]) -> None:
    study = small().located(None, "s3://bucket/a b;c")
    told = jobs.Job(study, "/runs/$(x)", ["--download"]).entrypoint
    assert told == (
        "python -m raydc run study.yaml --out '/runs/$(x)' --store 's3://bucket/a b;c' --address auto "
        "--download"
    )
    assert '--out "$HOME"/raydc-runs/small --' in jobs.Job(study).entrypoint


def test_what_is_packed(
    small: Callable[..., StudySpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text("x = 1\n")
    monkeypatch.setenv(plugins.VARIABLE, str(mine))
    folder = tmp_path / "packed"
    folder.mkdir()
    study = small("base.images.ipc=1")
    assert jobs.pack(study, folder) == {plugins.VARIABLE: "mine.py"}
    assert sorted(path.name for path in folder.iterdir()) == ["mine.py", "study.yaml"]
    assert (folder / "study.yaml").read_text() == study.to_yaml()


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("head:6379", "must be the URL"),
        ("ray://head:10001", "must be the URL"),
        ("http://127.0.0.1:1", "answers"),
    ],
)
def test_an_address_without_a_job_server(address: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        jobs.connect(address)


class Try:
    """The cluster of cluster/local/two_nodes.sh, and raydc beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        port = free_ports(5)
        self.ray, self.url = f"127.0.0.2:{port}", f"http://127.0.0.1:{port + 1}"
        binaries = Path(sys.executable).parent
        self.environment = {
            **os.environ,
            "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(SCRIPT.parents[2]),
            "RAYDC_TRY_DIR": str(folder / "t"),
            "RAYDC_TRY_PORT": str(port),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(folder / "t" / "token"),
            "COLUMNS": "200",
        }

    def script(self, word: str) -> str:
        told = subprocess.run(
            [str(SCRIPT), word], env=self.environment, capture_output=True, text=True, timeout=180, check=True
        )
        return told.stdout

    def start(self, *arguments: str, **changed: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "raydc", *arguments],
            cwd=self.folder,
            env={**self.environment, **changed},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def __call__(self, *arguments: str, code: int = 0, **changed: str) -> str:
        process = self.start(*arguments, **changed)
        out, err = process.communicate(timeout=300)
        assert process.returncode == code, f"exit code {process.returncode}\n{out}\n{err}"
        return out + err


@pytest.fixture(scope="module")
def two_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Try]:
    # Ray's sockets need a short path.
    folder = Path(
        subprocess.run(["mktemp", "-d", "/tmp/rdcXXXX"], capture_output=True, text=True).stdout.strip()
    )
    cluster = Try(folder)
    (folder / "mini.yaml").write_text(STUDY)
    try:
        cluster.script("start")
        yield cluster
    finally:
        cluster.script("stop")
        assert cluster.script("status").count("is stopped") == 2
        subprocess.run(["rm", "-r", str(folder)], check=True)


@pytest.mark.command
@pytest.mark.ray
@pytest.mark.slow
def test_a_study_as_a_job_with_a_plugin(two_nodes: Try) -> None:
    (two_nodes.folder / "brought.py").write_text(PLUGIN)
    out = two_nodes.folder / "runs" / "mini"
    options = ("--address", two_nodes.url, "--store", "store", "--out", str(out))
    said = two_nodes(
        "--plugin", "brought.py", "submit", "mini.yaml", *options, "--set", "base.images.method=first-ones"
    )
    assert "mini: 2 of 2 evaluations finished" in said
    assert (out / "report.html").is_file()
    assert (two_nodes.folder / "store" / "set").is_dir()
    job = re.search(r"submitted (\S+);", said)
    assert job is not None
    again = two_nodes("submit", "--follow", job[1], "--address", two_nodes.url)
    assert "mini: 2 of 2 evaluations finished" in again
    assert "had already ended" in two_nodes("submit", "--stop", job[1], "--address", two_nodes.url)
    # The folder holds this study, so the run refuses another with its own code.
    other = ("--set", "name=other")
    assert "holds the study 'mini'" in two_nodes("submit", "mini.yaml", *options, *other, code=2)


@pytest.mark.command
@pytest.mark.ray
@pytest.mark.slow
def test_a_run_on_a_cluster_brings_its_plugins(two_nodes: Try) -> None:
    (two_nodes.folder / "carried.py").write_text(PLUGIN.replace("brought", "carried").replace("first", "one"))
    where = ("--address", two_nodes.ray, "--store", "store", "--out", "runs/carried", "--no-report")
    said = two_nodes(
        "--plugin", "carried.py", "run", "mini.yaml", *where, "--set", "base.images.method=one-ones"
    )
    assert "mini: 2 of 2 evaluations finished" in said


@pytest.mark.command
@pytest.mark.ray
@pytest.mark.slow
def test_leaving_finding_and_stopping_a_job(two_nodes: Try) -> None:
    options = (
        "--address",
        two_nodes.url,
        "--store",
        "store",
        "--out",
        str(two_nodes.folder / "runs" / "long"),
    )
    long = ("--set", "name=long", "--set", "seeds=400", "--set", "base.train.steps=300")
    process = two_nodes.start("submit", "mini.yaml", *options, *long)
    assert process.stdout is not None
    assert process.stderr is not None
    job = re.search(r"submitted (\S+);", process.stdout.readline())
    assert job is not None
    for line in process.stdout:
        if "evaluations: " in line and "best" in line:
            break
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert f"detached: {job[1]} keeps running" in process.stderr.read()
    follower = two_nodes.start("submit", "--follow", job[1], "--address", two_nodes.url)
    assert f"{job[1]} is stopped" in two_nodes("submit", "--stop", job[1], "--address", two_nodes.url)
    out, _ = follower.communicate(timeout=60)
    assert follower.returncode == 130
    assert "interrupted" in out
    assert (two_nodes.folder / "runs" / "long" / "results.parquet").is_file()


@pytest.mark.command
@pytest.mark.ray
@pytest.mark.slow
def test_who_has_not_the_token_is_refused(two_nodes: Try) -> None:
    submit = ("submit", "mini.yaml", "--address", two_nodes.url, "--store", "store")
    doctor = ("doctor", "--address", two_nodes.ray)
    for command, said in ((submit, "rejects the token"), (doctor, "refuses the connection")):
        assert said in two_nodes(*command, code=2, RAY_AUTH_TOKEN="0123456789abcdef")
        assert "set RAY_AUTH_MODE=token" in two_nodes(*command, code=2, RAY_AUTH_MODE="disabled")


@pytest.mark.command
@pytest.mark.ray
@pytest.mark.slow
def test_the_doctor_sees_both_nodes_and_what_is_amiss(two_nodes: Try) -> None:
    command = ("doctor", "--address", two_nodes.ray, "--store", str(two_nodes.folder / "store"))
    said = two_nodes(*command)
    assert "2 nodes, 2 CPUs" in said
    assert said.count("read and written") == 2
    assert list((two_nodes.folder / "store" / "probe").iterdir()) == []
    amiss = two_nodes(*command, "--tracking-uri", "http://127.0.0.1:1", code=2)
    assert "MLflow at http://127.0.0.1:1" in amiss
    two_nodes.script("lose")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:  # Ray finds out after some seconds that a node is gone
        process = two_nodes.start(*command)
        said, _ = process.communicate(timeout=120)
        if "1 node," in said:
            break
    assert "1 node," in said
    two_nodes.script("join")
    assert "2 nodes," in two_nodes(*command)
