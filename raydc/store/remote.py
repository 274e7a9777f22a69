"""A store on an object store: checked copies on each node's disk, and retries on network errors.

    find: cache -> (one process of the node at a time) download -> cache
    draft: made in the cache, then uploaded, the manifest last

All processes of a node share one cache, `RAYDC_CACHE` (~/.cache/raydc). If it exceeds `RAYDC_CACHE_GIB` (by
default half of its disk), the least recently used artifacts are removed; open files stay readable.
"""

from __future__ import annotations

import fcntl
import io
import logging
import os
import shutil
import time
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from pyarrow import fs

from raydc.errors import ArtifactError, InputError, StoreError, without_password
from raydc.files.full_disk import writing_store
from raydc.files.plain_json import parse_json
from raydc.store.artifact import BLOCK, MANIFEST, Artifact, Draft, check_file, get, plain
from raydc.store.local import LocalStore, lines_of, parse_lines

logger = logging.getLogger(__name__)

T = TypeVar("T")
TRIES = 6
FIRST_WAIT_SECONDS = 0.5
"""Wait before the second try; each later wait is twice as long, 15 s in total."""
LOCKS = 256
"""Number of lock files that serialise the downloads of a node's processes."""
IN_USE_SECONDS = 600.0
"""An artifact is not removed from the cache until this long after its last use, so that it can be opened."""
LOOK_SHARE = 0.01
"""A process measures the size of the cache after it has added this fraction of the limit."""


def cache_of(uri: str) -> NodeCache:
    """This node's cache of the store at `uri`; `InputError` if an environment variable is invalid."""
    folder = Path(os.environ.get("RAYDC_CACHE", "~/.cache/raydc")).expanduser()
    given = os.environ.get("RAYDC_CACHE_GIB")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        limit = shutil.disk_usage(folder).total / 2 if given is None else float(given) * 2**30
    except OSError as error:
        raise InputError(
            f"RAYDC_CACHE is {str(folder)!r}, which cannot be created ({error.strerror}); give a folder"
        ) from None
    except ValueError:
        limit = -1.0
    if not limit > 0:
        raise InputError(f"RAYDC_CACHE_GIB is {given!r}, but must be a number above 0")
    cache = NodeCache(folder / f"{zlib.crc32(uri.encode()):08x}", limit)
    cache.sweep()
    return cache


class NodeCache(LocalStore):
    """Copies of artifacts for all processes of a node."""

    def __init__(self, root: Path, limit_bytes: float) -> None:
        super().__init__(root)
        self._limit = limit_bytes
        self._added = limit_bytes
        """Bytes added since this process last measured the cache; starts at the limit to force a
        measurement."""

    def writing(self) -> AbstractContextManager[None]:
        where = "set RAYDC_CACHE to a folder on a larger disk"
        return writing_store(self.root, "this node's cache", where)

    def find(self, kind: str, name: str) -> Artifact | None:
        artifact = super().find(kind, name)
        if artifact is not None:
            try:
                os.utime(artifact.path(MANIFEST))
            except FileNotFoundError:
                return None  # another process has removed it to free space
        return artifact

    @contextmanager
    def alone(self, kind: str, name: str) -> Iterator[None]:
        """Lock an artifact against other processes and threads of the node."""
        path = self.root / ".locks" / str(zlib.crc32(f"{kind}/{name}".encode()) % LOCKS)
        with self.writing():
            path.parent.mkdir(parents=True, exist_ok=True)
            opened = path.open("w")
        with opened as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def make_room(self, new: Artifact) -> None:
        """Remove the least recently used artifacts while the cache is too large; dataset images last."""
        self._added += sum(new.path(file).stat().st_size for file in new.files)
        if self._added < LOOK_SHARE * self._limit:
            return
        self._added = 0
        held = sorted(self._held())
        total = sum(size for *_, size in held)
        for _, used_at, kind, name, size in held:
            if total > self._limit and abs(time.time() - used_at) > IN_USE_SECONDS:
                self.remove(kind, name)
                total -= size

    def _held(self) -> Iterator[tuple[bool, float, str, str, int]]:
        """(whether it is a dataset's images, time of last use, kind, name, bytes) of each artifact."""
        for manifest in self.root.glob(f"*/*/{MANIFEST}"):
            folder = manifest.parent
            try:
                used_at = manifest.stat().st_mtime
                size = sum(file.stat().st_size for file in folder.iterdir())
            except FileNotFoundError:
                continue  # another process has removed it
            kind = folder.parent.name
            yield kind == "pixels", used_at, kind, folder.name, size


class RemoteStore:
    """A store on a pyarrow.fs file system, with checked copies of artifacts in a local cache."""

    def __init__(self, uri: str, filesystem: fs.FileSystem, root: str, cache: NodeCache) -> None:
        self.uri = uri
        self._shown = without_password(uri)
        self._fs = filesystem
        self._root = root.rstrip("/")
        self._cache = cache
        self._rechecking = False

    def _path(self, *parts: str) -> str:
        return "/".join((self._root, *parts))

    def _patiently(self, action: Callable[[], T]) -> T:
        """Call `action`, with retries if the object store does not answer; then `StoreError`."""
        for number in range(TRIES):
            try:
                return action()
            except (FileNotFoundError, StoreError):
                raise
            except OSError as error:
                reason = " ".join(str(error).replace(self.uri, self._shown).split())[:200]
            logger.warning("the store %s does not answer (%s)", self._shown, reason)
            if number < TRIES - 1:
                time.sleep(FIRST_WAIT_SECONDS * 2**number)
        raise StoreError(
            f"the store {self._shown!r} does not answer after {TRIES} tries ({reason}); fix this and run "
            "the study again"
        )

    def _infos(self, asked: Any) -> Any:
        return self._patiently(lambda: self._fs.get_file_info(asked))

    def has(self, kind: str, name: str) -> bool:
        return bool(self._infos(self._path(kind, name, MANIFEST)).type == fs.FileType.File)

    def is_intact(self, kind: str, name: str) -> bool:
        return self._copy(kind, name) is not None or self.has(kind, name)

    def recheck(self) -> None:
        self._cache.recheck()
        self._rechecking = True

    def names(self, kind: str) -> list[str]:
        selector = fs.FileSelector(self._path(kind), recursive=True, allow_not_found=True)
        return sorted(
            info.path.split("/")[-2] for info in self._infos(selector) if info.base_name == MANIFEST
        )

    def _read(self, path: str) -> bytes:
        def read() -> bytes:
            with self._fs.open_input_stream(path) as stream:
                return bytes(stream.read())

        return self._patiently(read)

    def _fetch(self, path: str, target: Path) -> None:
        def fetch() -> None:
            # A full local disk is not an unreachable store: no retry.
            with (
                self._cache.writing(),
                self._fs.open_input_stream(path) as stream,
                target.open("wb") as copy,
            ):
                shutil.copyfileobj(stream, copy, BLOCK)

        self._patiently(fetch)

    def _write(self, path: str, content: BinaryIO) -> None:
        def write() -> None:
            content.seek(0)
            self._fs.create_dir(path.rpartition("/")[0], recursive=True)
            with self._fs.open_output_stream(path) as stream:
                shutil.copyfileobj(content, stream, BLOCK)

        self._patiently(write)

    def find(self, kind: str, name: str) -> Artifact | None:
        if (copy := self._copy(kind, name)) is not None:
            return copy
        with self._cache.alone(kind, name):
            # Another process may have fetched it while this one waited.
            return self._cache.find(kind, name) or self._downloaded(kind, name)

    def _copy(self, kind: str, name: str) -> Artifact | None:
        """This node's copy; it is uploaded again if the object store has lost the artifact."""
        copy = self._cache.find(kind, name)
        if copy is not None and self._rechecking and not self.has(kind, name):
            self._upload(kind, name, copy)
        return copy

    def _downloaded(self, kind: str, name: str) -> Artifact | None:
        if not self.has(kind, name):
            return None
        try:
            manifest = parse_json(self._read(self._path(kind, name, MANIFEST)))
            with self._cache.draft(kind) as draft:
                for file, (size, crc) in manifest["files"].items():
                    target = draft.large(plain(file)) if crc is None else draft.path(plain(file))
                    self._fetch(self._path(kind, name, file), target)
                    check_file(target, size, crc)
                draft.commit(name, **manifest["meta"])
        except (FileNotFoundError, ValueError, KeyError, TypeError, ArtifactError) as error:
            logger.warning("%s/%s in %s is damaged (%s) and will be rebuilt", kind, name, self._shown, error)
            self.remove(kind, name)
            return None
        found = self._cache.find(kind, name)
        if found is not None:
            self._cache.make_room(found)
        return found

    @contextmanager
    def draft(self, kind: str) -> Iterator[Draft]:
        with self._cache.draft(kind) as draft:
            yield draft
        if draft.name is not None:
            made = get(self._cache, kind, draft.name)
            try:
                self._upload(kind, draft.name, made)
            except StoreError:
                # Otherwise this node would use an artifact that other nodes lack.
                self._cache.remove(kind, draft.name)
                raise
            self._cache.make_room(made)

    def _upload(self, kind: str, name: str, made: Artifact) -> None:
        """Write an artifact of the cache to the object store, the manifest last."""
        for file in (*made.files, MANIFEST):
            with made.path(file).open("rb") as content:
                self._write(self._path(kind, name, file), content)

    def remove(self, kind: str, name: str) -> None:
        self._cache.remove(kind, name)
        if self.has(kind, name):
            try:
                self._patiently(lambda: self._fs.delete_file(self._path(kind, name, MANIFEST)))
                self._patiently(lambda: self._fs.delete_dir(self._path(kind, name)))
            except FileNotFoundError:
                return  # another process was faster

    def append_results(self, dataset: str, rows: Sequence[Mapping[str, Any]]) -> None:
        if rows:
            path = self._path("results", dataset, f"{uuid.uuid4().hex}.jsonl")
            self._write(path, io.BytesIO(lines_of(rows)))

    def results(self, dataset: str) -> Iterator[dict[str, Any]]:
        selector = fs.FileSelector(self._path("results", dataset), allow_not_found=True)
        for info in self._infos(selector):
            if info.extension == "jsonl":
                yield from parse_lines(self._read(info.path), info.path)
