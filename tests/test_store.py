"""Artifacts are complete or absent, checked when read, and rebuilt when damaged."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pyarrow import fs
from safetensors.torch import save_file

from raydc import remote_store
from raydc import store as stores
from raydc.data.decoding import _DecodedWriter
from raydc.errors import ArtifactError, InputError, StoreError
from raydc.labels.store import write_logits
from raydc.remote_store import NodeCache, RemoteStore
from raydc.store import Draft, LocalStore, Store, get, open_store


@pytest.fixture(params=["local", "remote"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return LocalStore(tmp_path / "store")
    # A local folder behind pyarrow.fs's interface goes the way of an object store.
    return remote(tmp_path)


def remote(folder: Path, cache: str = "cache", limit_bytes: float = 1e9) -> RemoteStore:
    """A store in `folder`/bucket as a process of a node sees it that has its cache in `folder`/CACHE."""
    (folder / "bucket").mkdir(exist_ok=True)
    bucket = fs.SubTreeFileSystem(str(folder / "bucket"), fs.LocalFileSystem())
    return RemoteStore("test://bucket", bucket, "x", NodeCache(folder / cache, limit_bytes))


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
    put(remote(tmp_path), "a")
    (tmp_path / "bucket" / "x" / "thing" / "a" / "file.bin").write_bytes(b"contend")
    other = remote(tmp_path, "cache2")
    assert other.find("thing", "a") is None
    assert not other.has("thing", "a")


def test_what_is_damaged_after_it_was_found_is_found_damaged(any_store: Store) -> None:
    put(any_store, "a")
    file = get(any_store, "thing", "a").path("file.bin")
    file.write_bytes(b"contend")
    if isinstance(any_store, LocalStore):
        assert any_store.find("thing", "a") is None
    else:  # its copy is fetched again
        assert get(any_store, "thing", "a").path("file.bin").read_bytes() == b"content"


def test_a_process_that_doubts_brings_back_what_the_object_store_has_lost(tmp_path: Path) -> None:
    made = remote(tmp_path)
    put(made, "a")
    shutil.rmtree(tmp_path / "bucket" / "x" / "thing" / "a")
    other = remote(tmp_path, "cache2")
    assert made.find("thing", "a") is not None
    assert other.find("thing", "a") is None
    made.doubt()
    assert made.find("thing", "a") is not None
    assert get(other, "thing", "a").path("file.bin").read_bytes() == b"content"


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
        f"{number} is damaged and is passed over" for number in (1, 2, 3, 4)
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


# --- disks that are full, stores that do not answer ------------------------------------------------


def no_space(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def left_behind(store: LocalStore) -> list[str]:
    return [path.name for path in store.root.glob("*/.*")]


@pytest.mark.parametrize("at", ["checksum", "sync", "write_atomically"])
def test_a_full_disk_is_said_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    store = LocalStore(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(stores, at, no_space)
        with pytest.raises(StoreError, match=r"cannot be written \(No space left on device\); make space"):
            put(store, "a")
    assert left_behind(store) == []
    assert store.names("thing") == []
    put(store, "a")
    assert store.names("thing") == ["a"]


def test_results_that_find_no_space_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(tmp_path)
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(StoreError, match="make space"):
        store.append_results("data", [{"evaluation_id": "a"}])
    assert list((tmp_path / "results" / "data").iterdir()) == []


def test_other_errors_are_not_said_to_be_the_disks(tmp_path: Path) -> None:
    def fail() -> None:
        with LocalStore(tmp_path).draft("thing"):
            raise PermissionError(errno.EACCES, "denied", "/somewhere/else")

    with pytest.raises(PermissionError, match="somewhere"):
        fail()


BYTES = 4 << 20
WRITERS: dict[str, Callable[[Draft], object]] = {
    "bytes": lambda draft: draft.path("file").write_bytes(bytes(BYTES)),
    "numpy": lambda draft: np.save(draft.path("file.npy"), np.zeros(BYTES, np.uint8)),
    "safetensors": lambda draft: save_file({"w": torch.zeros(BYTES // 4)}, draft.path("file")),
    "arrow": lambda draft: write_logits(draft.folder, np.zeros((BYTES // 40, 10), np.float32)),
    "mapped": lambda draft: _DecodedWriter(draft, "train", (BYTES // 3072, 3, 32, 32)).close(),
}


@pytest.mark.tmpfs
@pytest.mark.parametrize("writer", WRITERS)
def test_every_library_that_meets_a_full_disk_is_understood(
    small_disk: Callable[[str], Path], writer: str
) -> None:
    store = LocalStore(small_disk("2m"))
    put(store, "before")

    def write() -> None:
        with store.draft("thing") as draft:
            WRITERS[writer](draft)
            draft.commit("large")

    with pytest.raises(StoreError, match=r"cannot be written \(No space left on device\)"):
        write()
    assert left_behind(store) == []
    put(store, "after")
    assert LocalStore(store.root).names("thing") == ["after", "before"]


@pytest.mark.tmpfs
def test_a_disk_that_became_read_only_is_said(small_disk: Callable[[str], Path]) -> None:
    store = LocalStore(small_disk("1m"))
    put(store, "a")
    subprocess.run(["mount", "-o", "remount,ro", str(store.root)], check=True)
    with pytest.raises(StoreError, match="Read-only file system"):
        put(store, "b")
    assert store.find("thing", "a") is not None


class Faulty(fs.FileSystemHandler):
    """A file system whose next operations fail; it counts what is opened."""

    def __init__(self, root: Path) -> None:
        root.mkdir(exist_ok=True)
        self._inner = fs.SubTreeFileSystem(str(root), fs.LocalFileSystem())
        self.failing = 0
        self.opened: list[str] = []

    def _ask(self) -> Any:
        if self.failing:
            self.failing -= 1
            raise OSError("AWS Error NETWORK_CONNECTION: timed out")
        return self._inner

    def get_type_name(self) -> str:
        return "faulty"

    def get_file_info(self, paths: list[str]) -> Any:
        return self._ask().get_file_info(paths)

    def get_file_info_selector(self, selector: fs.FileSelector) -> Any:
        return self._ask().get_file_info(selector)

    def open_input_stream(self, path: str) -> Any:
        self.opened.append(path)
        time.sleep(0.05)
        return self._ask().open_input_stream(path)

    def open_output_stream(self, path: str, metadata: Any) -> Any:
        return self._ask().open_output_stream(path)

    def create_dir(self, path: str, recursive: bool) -> None:
        self._ask().create_dir(path, recursive=recursive)

    def delete_file(self, path: str) -> None:
        self._ask().delete_file(path)

    def delete_dir(self, path: str) -> None:
        self._ask().delete_dir(path)

    def _unused(self, *_: Any) -> None:
        raise AssertionError("the store has asked for what no object store should have to do")

    copy_file = delete_dir_contents = delete_root_dir_contents = move = _unused
    open_append_stream = open_input_file = _unused

    def normalize_path(self, path: str) -> str:
        return path


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Faulty, Callable[[str], RemoteStore]]:
    """A faulty object store, and the store as nodes with their own caches see it."""
    monkeypatch.setattr(remote_store, "FIRST_WAIT_SECONDS", 0.001)
    handler = Faulty(tmp_path / "bucket")

    def node(name: str) -> RemoteStore:
        return RemoteStore("test://bucket", fs.PyFileSystem(handler), "x", NodeCache(tmp_path / name, 1e9))

    return handler, node


def test_an_object_store_that_answers_late_costs_time_only(
    faulty: tuple[Faulty, Callable[[str], RemoteStore]],
) -> None:
    handler, node = faulty
    one, other = node("one"), node("other")
    handler.failing = 3
    put(one, "a")
    handler.failing = 4
    assert get(other, "thing", "a").path("file.bin").read_bytes() == b"content"
    handler.failing = 2
    one.append_results("data", [{"evaluation_id": "a"}])
    handler.failing = 2
    assert [row["evaluation_id"] for row in other.results("data")] == ["a"]


def test_an_object_store_that_is_away_is_asked_a_bounded_number_of_times(
    faulty: tuple[Faulty, Callable[[str], RemoteStore]],
) -> None:
    handler, node = faulty
    store = node("one")
    handler.failing = 10**6
    with pytest.raises(
        StoreError, match=r"'test://bucket' does not answer after 6 tries \(AWS Error NETWORK"
    ):
        put(store, "a")
    assert handler.failing == 10**6 - remote_store.TRIES
    handler.failing = 0
    assert store.find("thing", "a") is None
    put(store, "a")
    assert store.names("thing") == ["a"]


@pytest.mark.tmpfs
def test_a_cache_that_is_full_is_no_store_that_is_away(
    faulty: tuple[Faulty, Callable[[str], RemoteStore]], small_disk: Callable[[str], Path]
) -> None:
    handler, node = faulty
    put(node("maker"), "large", bytes(BYTES))
    full = NodeCache(small_disk("2m") / "cache", 1e9)
    store = RemoteStore("test://bucket", fs.PyFileSystem(handler), "x", full)
    handler.opened.clear()
    with pytest.raises(
        StoreError, match=r"this node's cache '.*/cache' cannot be written \(No space left"
    ) as said:
        store.find("thing", "large")
    assert "set RAYDC_CACHE to a folder on a larger disk" in str(said.value)
    assert [path.rpartition("/")[2] for path in handler.opened] == ["manifest.json", "file.bin"]
    with pytest.raises(StoreError, match="this node's cache"):
        put(store, "larger", bytes(BYTES))
    assert store.has("thing", "large")


def test_no_message_holds_the_stores_password(
    faulty: tuple[Faulty, Callable[[str], RemoteStore]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    handler, _ = faulty
    uri = "test://KEY:hidden@bucket/x?session_token=hidden"
    store = RemoteStore(uri, fs.PyFileSystem(handler), "x", NodeCache(tmp_path / "cache", 1e9))
    with pytest.raises(ArtifactError, match="test://KEY@bucket/x,") as absent:
        get(store, "thing", "a")
    put(store, "a")
    store.doubt()
    handler.failing = 10**6
    with pytest.raises(StoreError, match="'test://KEY@bucket/x' does not answer") as away:
        store.names("thing")
    assert "hidden" not in caplog.text + str(absent.value) + str(away.value)


def test_whether_it_is_there_is_asked_without_a_download(
    faulty: tuple[Faulty, Callable[[str], RemoteStore]],
) -> None:
    handler, node = faulty
    put(node("one"), "a")
    other = node("two")
    assert (other.sound("thing", "a"), other.sound("thing", "b")) == (True, False)
    assert handler.opened == []
    assert other.find("thing", "a") is not None
    assert handler.opened


def test_a_node_downloads_an_artifact_once(faulty: tuple[Faulty, Callable[[str], RemoteStore]]) -> None:
    handler, node = faulty
    put(node("maker"), "a")
    found: list[bytes] = []

    def work() -> None:
        # Each with a store of its own, as the processes of a node have.
        found.append(get(node("node"), "thing", "a").path("file.bin").read_bytes())

    workers = [threading.Thread(target=work) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert found == [b"content"] * 8
    assert sorted(path.rpartition("/")[2] for path in handler.opened) == ["file.bin", "manifest.json"]


def test_a_cache_that_is_too_large_loses_what_was_used_longest_ago(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_store, "IN_USE_SECONDS", 100.0)
    store = remote(tmp_path, limit_bytes=5000)
    now = time.time()
    for number, name in enumerate(["a", "b", "c"]):
        put(store, name, bytes(1500))
        used = now - 1000 + number
        os.utime(tmp_path / "cache" / "thing" / name / "manifest.json", (used, used))
    get(store, "thing", "a")  # now it was used last
    with (tmp_path / "cache" / "thing" / "b" / "file.bin").open("rb") as opened:
        put(store, "d", bytes(1500))
        assert NodeCache(tmp_path / "cache", 1.0).names("thing") == ["a", "c", "d"]
        assert len(opened.read()) == 1500  # who has it open keeps it
    # Everything is still in the object store, and comes back when it is asked for.
    assert store.names("thing") == ["a", "b", "c", "d"]
    assert len(get(store, "thing", "b").path("file.bin").read_bytes()) == 1500


@pytest.mark.parametrize("given", ["0", "-3", "nan", "much"])
def test_a_cache_of_an_impossible_size_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setenv("RAYDC_CACHE", str(tmp_path))
    monkeypatch.setenv("RAYDC_CACHE_GIB", given)
    with pytest.raises(InputError, match="must be a number above 0"):
        remote_store.cache_of("test://bucket")


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
