"""Artifacts are complete or absent, checked when read, and rebuilt when damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pyarrow import fs

from raydc.errors import ArtifactError, InputError
from raydc.store import LocalStore, RemoteStore, Store, get, open_store


@pytest.fixture(params=["local", "remote"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return LocalStore(tmp_path / "store")
    # A local folder behind pyarrow.fs's interface goes the way of an object store.
    root = tmp_path / "bucket"
    root.mkdir()
    cache = LocalStore(tmp_path / "cache")
    return RemoteStore("test://bucket", fs.SubTreeFileSystem(str(root), fs.LocalFileSystem()), "x", cache)


def put(store: Store, name: str, content: bytes = b"content") -> None:
    with store.draft("thing") as draft:
        draft.path("file.bin").write_bytes(content)
        draft.commit(name, answer=42)


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


def test_damage_in_an_object_store_is_found_on_download(tmp_path: Path) -> None:
    bucket = fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())
    put(RemoteStore("test://", bucket, "root", LocalStore(tmp_path / "cache1")), "a")
    (tmp_path / "root" / "thing" / "a" / "file.bin").write_bytes(b"contend")
    other = RemoteStore("test://", bucket, "root", LocalStore(tmp_path / "cache2"))
    assert other.find("thing", "a") is None
    assert not other.has("thing", "a")


def test_results_survive_and_a_torn_line_costs_itself_only(any_store: Store, tmp_path: Path) -> None:
    any_store.append_results("data", [{"evaluation_id": "a"}, {"evaluation_id": "b"}])
    any_store.append_results("data", [{"evaluation_id": "c"}])
    assert {row["evaluation_id"] for row in any_store.results("data")} == {"a", "b", "c"}
    assert list(any_store.results("other")) == []
    segment = next(path for path in tmp_path.rglob("*.jsonl") if len(path.read_text().splitlines()) == 2)
    segment.write_text(segment.read_text()[:-5])
    assert {row["evaluation_id"] for row in any_store.results("data")} == {"a", "c"}


def test_a_store_that_cannot_be_opened_is_refused() -> None:
    with pytest.raises(InputError, match="nonsense://"):
        open_store("nonsense://bucket/x")


def test_a_file_uri_is_a_folder(tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri())
    put(store, "a")
    manifest = json.loads((tmp_path / "thing" / "a" / "manifest.json").read_text())
    assert manifest["meta"] == {"answer": 42}
