"""Artifacts are complete or absent, checked when read, and rebuilt when damaged."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from raydc.errors import ArtifactError, InputError
from raydc.store.artifact import Store, get
from raydc.store.local import LocalStore
from raydc.store.opening import open_store
from tests.stores import put, remote


@pytest.fixture(params=["local", "remote"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return LocalStore(tmp_path / "store")
    # A local folder behind pyarrow.fs's interface goes the way of an object store.
    return remote(tmp_path)


def test_what_was_put_is_found(any_store: Store) -> None:
    assert any_store.find("thing", "a") is None
    put(any_store, "a")
    artifact = get(any_store, "thing", "a")
    assert artifact.path("file.bin").read_bytes() == b"content"
    assert artifact.meta["answer"] == 42
    assert any_store.has("thing", "a")
    assert any_store.names("thing") == ["a"]
    any_store.remove("thing", "a")
    assert any_store.find("thing", "a") is None
    with pytest.raises(ArtifactError, match="thing/a"):
        get(any_store, "thing", "a")


def test_a_draft_that_fails_leaves_nothing(any_store: Store) -> None:
    def fail() -> None:
        with any_store.draft("thing") as draft:
            draft.path("file.bin").write_bytes(b"half")
            draft.commit("a")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert any_store.find("thing", "a") is None
    assert any_store.names("thing") == []


def test_the_second_of_two_equal_artifacts_is_dropped(any_store: Store) -> None:
    put(any_store, "a")
    put(any_store, "a")
    assert any_store.names("thing") == ["a"]


@pytest.mark.parametrize("damage", ["flip", "cut", "missing", "manifest"])
def test_a_damaged_artifact_is_absent_and_can_be_made_again(tmp_path: Path, damage: str) -> None:
    put(LocalStore(tmp_path), "a")
    folder = tmp_path / "thing" / "a"
    file = folder / "file.bin"
    if damage == "flip":
        file.write_bytes(b"contend")
    elif damage == "cut":
        file.write_bytes(b"cont")
    elif damage == "missing":
        file.unlink()
    else:
        (folder / "manifest.json").write_text('{"files": {')
    store = LocalStore(tmp_path)
    assert store.find("thing", "a") is None
    put(store, "a")
    assert get(store, "thing", "a").path("file.bin").read_bytes() == b"content"


def test_what_is_damaged_after_it_was_found_is_found_damaged(any_store: Store) -> None:
    put(any_store, "a")
    file = get(any_store, "thing", "a").path("file.bin")
    file.write_bytes(b"contend")
    if isinstance(any_store, LocalStore):
        assert any_store.find("thing", "a") is None
    else:  # its copy is fetched again
        assert get(any_store, "thing", "a").path("file.bin").read_bytes() == b"content"


def test_results_survive_and_a_torn_line_costs_itself_only(any_store: Store, tmp_path: Path) -> None:
    any_store.append_results("data", [{"evaluation_id": "a"}, {"evaluation_id": "b"}])
    any_store.append_results("data", [{"evaluation_id": "c"}])
    assert {row["evaluation_id"] for row in any_store.results("data")} == {"a", "b", "c"}
    assert list(any_store.results("other")) == []
    segment = next(path for path in tmp_path.rglob("*.jsonl") if len(path.read_text().splitlines()) == 2)
    segment.write_text(segment.read_text()[:-5])
    assert {row["evaluation_id"] for row in any_store.results("data")} == {"a", "c"}


def test_lines_that_are_no_results_are_passed_over(
    any_store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    any_store.append_results("data", [{"evaluation_id": "a"}])
    segment = next(tmp_path.rglob("*.jsonl"))
    segment.write_text('[1]\n7\n{}\n{"evaluation_id": 7}\n' + segment.read_text())
    assert list(any_store.results("data")) == [{"evaluation_id": "a"}]
    assert [record.message.partition(" line ")[2] for record in caplog.records] == [
        f"{number} is damaged and is skipped" for number in (1, 2, 3, 4)
    ]


def test_a_store_that_cannot_be_opened_is_refused() -> None:
    with pytest.raises(InputError, match="nonsense://KEY@bucket/x") as refused:
        open_store("nonsense://KEY:hidden@bucket/x")
    assert "hidden" not in str(refused.value)


def test_a_file_uri_is_a_folder(tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri())
    put(store, "a")
    manifest = json.loads((tmp_path / "thing" / "a" / "manifest.json").read_text())
    assert manifest["meta"] == {"answer": 42}


@pytest.mark.parametrize("jump_seconds", [-3600.0, 24 * 3600.0])
def test_a_clock_that_jumps_takes_no_draft_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump_seconds: float
) -> None:
    store = LocalStore(tmp_path)
    real = time.time
    with store.draft("thing") as draft:
        draft.path("file.bin").write_bytes(b"content")
        monkeypatch.setattr(time, "time", lambda: real() + jump_seconds)
        open_store(tmp_path)
        draft.commit("a")
    assert store.names("thing") == ["a"]
