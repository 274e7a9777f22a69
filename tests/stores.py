"""Stores to be tested, and something to put in."""

from __future__ import annotations

from pathlib import Path

from pyarrow import fs

from raydc.store.artifact import Store
from raydc.store.remote import NodeCache, RemoteStore


def remote(folder: Path, cache: str = "cache", limit_bytes: float = 1e9) -> RemoteStore:
    """A store in `folder`/bucket as a process of a node sees it that has its cache in `folder`/CACHE."""
    (folder / "bucket").mkdir(exist_ok=True)
    bucket = fs.SubTreeFileSystem(str(folder / "bucket"), fs.LocalFileSystem())
    return RemoteStore("test://bucket", bucket, "x", NodeCache(folder / cache, limit_bytes))


def put(store: Store, name: str, content: bytes = b"content") -> None:
    with store.draft("thing") as draft:
        draft.path("file.bin").write_bytes(content)
        draft.commit(name, answer=42)
