"""Disks that are full or cannot be written: what is said, what stays; and errors that are not theirs."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from raydc.data.decoding import _DecodedWriter
from raydc.data.imported import digest_of
from raydc.errors import InputError, StoreError
from raydc.files.full_disk import add_to_hash, fault
from raydc.labels.logits_file import write_logits
from raydc.labels.replayed import digest_of_labels
from raydc.store import local
from raydc.store.artifact import Draft
from raydc.store.local import LocalStore
from raydc.teachers.checkpoint import file_digest
from tests.stores import put


def test_causes_are_followed_unless_they_were_cut_off(tmp_path: Path) -> None:
    def raised(cut: bool) -> BaseException:
        try:
            try:
                raise PermissionError(errno.EACCES, "denied", str(tmp_path / "file"))
            except PermissionError:
                if cut:
                    raise KeyError("other") from None
                raise KeyError("other")  # noqa: B904
        except KeyError as error:
            return error

    assert fault(raised(cut=False), tmp_path) == "Permission denied"
    assert fault(raised(cut=True), tmp_path) is None


def test_an_error_that_names_no_file_is_the_folders_only_if_a_disk_is_full(tmp_path: Path) -> None:
    assert fault(OSError(errno.EPERM, "not permitted"), tmp_path) is None
    assert fault(OSError(errno.EDQUOT, "quota"), tmp_path) == "Disk quota exceeded"


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
        patch.setattr(local, at, no_space)
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


def test_what_never_ends_is_not_hashed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (Path("/dev/zero"), tmp_path / "pipe"):
        with pytest.raises(OSError, match="a device or a pipe"):
            add_to_hash(hashlib.sha256(), path)
        for digest in (file_digest, digest_of_labels, partial(digest_of, "images.path")):
            with pytest.raises(InputError, match="cannot be read: it is a device or a pipe, not a file"):
                digest(str(path))
    (tmp_path / "replay_buffer_0.pt").mkdir()
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        file_digest(str(tmp_path))
