"""raydc doctor: each thing that can be amiss is one finding, with what to do."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from raydc.commands import doctor
from raydc.commands.doctor import Finding, examine
from raydc.training.compiling import compiler, no_compiler

GIB = 2**30


@pytest.fixture(autouse=True)
def _no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray starts in the tests of the command; a compiler is tried where a test asks for one."""
    monkeypatch.setenv("CXX", "")
    monkeypatch.setattr(doctor, "_ray_starts", lambda: Finding("ray starts", True, "2 CPUs, 0 GPUs"))


def looked(store: Path | str, check: str, tracking_uri: str | None = None) -> Finding:
    (found,) = (f for f in examine(tracking_uri, str(store)) if f.check == check)
    return found


def free(monkeypatch: pytest.MonkeyPatch, gib: float) -> None:
    usage = shutil.disk_usage("/")._replace(free=int(gib * GIB))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)


def test_where_nothing_is_amiss_every_check_says_what_it_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free(monkeypatch, 80)
    found = examine(None, str(tmp_path))
    assert [f for f in found if not f.ok] == []
    assert all(f.found for f in found)
    assert len({f.check for f in found}) == len(found) == 10


@pytest.mark.parametrize(("gib", "ok"), [(4.9, False), (5.0, True)])
def test_a_disk_without_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gib: float, ok: bool) -> None:
    free(monkeypatch, gib)
    found = looked(tmp_path / "not" / "there" / "yet", "disk")
    assert found.ok == ok
    assert found.found == f"{gib:.1f} GiB free at {tmp_path}"
    assert "free some space" in found.fix


@pytest.mark.parametrize("store", ["/proc/store", "/dev/null/store"])
def test_a_store_that_cannot_be_written(store: str) -> None:
    found = looked(store, "disk")
    assert not found.ok
    assert found.found.startswith(str(Path(store).parent))
    assert "RAYDC_STORE" in found.fix


def test_a_remote_store_is_named_without_its_password() -> None:
    found = looked("s3://me:hush@bucket/store", "store")
    assert found.ok
    assert "bucket" in found.found
    assert "hush" not in found.found


def test_an_mlflow_server_that_is_not_there(tmp_path: Path) -> None:
    found = looked(tmp_path, "mlflow server", "http://127.0.0.1:1")
    assert not found.ok
    assert "127.0.0.1:1" in found.found


def test_a_package_that_is_not_installed() -> None:
    found = doctor._package("no-such-package", "pip install it")
    assert found == Finding("no-such-package", False, "not installed", "pip install it")


@pytest.mark.compiler
def test_a_compiler_that_works_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX")
    found = looked(tmp_path, "compiler")
    assert found.ok
    assert found.found == compiler()


@pytest.mark.command  # the compiler
def test_a_compiler_that_does_not_work_is_told_as_students_meet_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "false")
    found = looked(tmp_path, "compiler")
    assert found.ok  # students run without one
    assert "false does not work (exit status 1" in found.found
    assert found.found == no_compiler()


def test_a_check_that_breaks_is_a_finding_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> Finding:
        raise RuntimeError("the driver is gone")

    monkeypatch.setattr(doctor, "_device", broken)
    assert looked(tmp_path, "device") == Finding(
        "device", False, "RuntimeError: the driver is gone", "see the error"
    )
    assert len(examine(None, str(tmp_path))) == 10
