"""Stores behind an object store that answers late or not at all, and the caches of their nodes."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyarrow import fs

from raydc.errors import ArtifactError, InputError, StoreError
from raydc.store import remote as remote_store
from raydc.store.artifact import get
from raydc.store.remote import NodeCache, RemoteStore
from tests.stores import put, remote


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


def test_damage_in_an_object_store_is_found_on_download(tmp_path: Path) -> None:
    put(remote(tmp_path), "a")
    (tmp_path / "bucket" / "x" / "thing" / "a" / "file.bin").write_bytes(b"contend")
    other = remote(tmp_path, "cache2")
    assert other.find("thing", "a") is None
    assert not other.has("thing", "a")


def test_a_process_that_doubts_brings_back_what_the_object_store_has_lost(tmp_path: Path) -> None:
    made = remote(tmp_path)
    put(made, "a")
    shutil.rmtree(tmp_path / "bucket" / "x" / "thing" / "a")
    other = remote(tmp_path, "cache2")
    assert made.find("thing", "a") is not None
    assert other.find("thing", "a") is None
    made.recheck()
    assert made.find("thing", "a") is not None
    assert get(other, "thing", "a").path("file.bin").read_bytes() == b"content"


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
    put(node("maker"), "large", bytes(4 << 20))
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
        put(store, "larger", bytes(4 << 20))
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
    store.recheck()
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
    assert (other.is_intact("thing", "a"), other.is_intact("thing", "b")) == (True, False)
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
