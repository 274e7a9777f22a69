"""The store: artifacts by kind and name, built once, checked when read, rebuilt when damaged.

An artifact is a folder of files with a manifest that holds their sizes and CRC-32 sums and what
they were made from. Local stores write to a temporary folder, fsync and rename; object stores
upload the files and the manifest last, and keep a checked copy in a local cache. So an artifact is
either complete or absent, whoever was killed when.

    store/KIND/NAME/manifest.json   and the files beside it
    store/results/DATASET/*.jsonl   finished results, appended in segments
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
import uuid
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pyarrow import fs

from raydc.disk import writing_store
from raydc.errors import ArtifactError, InputError, StoreError, without_password
from raydc.plain_json import parse_json

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
BLOCK = 1 << 22
STALE_SECONDS = 48 * 3600.0
"""Age at which an unfinished artifact is a killed process's."""


def checksum(path: Path) -> str:
    """CRC-32 of a file as 8 hexadecimal digits (3 GB/s: it is read at every start)."""
    crc = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            crc = zlib.crc32(block, crc)
    return f"{crc:08x}"


def check_file(path: Path, size: int, crc: str | None) -> None:
    """Raise `ArtifactError` unless a file has the size and, where one was kept, the sum."""
    if path.stat().st_size != size or (crc is not None and checksum(path) != crc):
        raise ArtifactError(f"{path.name} does not have the bytes that were written")


def plain(name: str) -> str:
    """A file name of a manifest; `ArtifactError` if it leaves the artifact's folder."""
    if Path(name).name != name or name in ("", ".."):
        raise ArtifactError(f"{name!r} is not a plain file name")
    return name


def sync(path: Path) -> None:
    """Force a file's bytes, or a folder's entries, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` by `content`: a reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


def cut_torn_line(path: Path) -> bool:
    """Take off what a process that was killed while it appended has left; whether there was any."""
    if not path.exists():
        return False
    with path.open("rb+") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole == len(content):
            return False
        file.truncate(whole)
    return True


@dataclass(frozen=True)
class Artifact:
    """A complete, checked artifact on this machine's disk."""

    folder: Path
    meta: Mapping[str, Any]
    """What it was made from and what was measured while it was made."""
    files: tuple[str, ...]
    """Names of its files, without the manifest."""

    def path(self, name: str) -> Path:
        return self.folder / name

    def noted(self, key: str) -> Any:
        """What its manifest says of `key`; `ArtifactError` if it says nothing."""
        try:
            return self.meta[key]
        except (KeyError, TypeError):
            raise ArtifactError(
                f"{self.path(MANIFEST)} does not say {key!r}; remove the folder {str(self.folder)!r}, and it "
                "is made again"
            ) from None


Stamp = tuple[tuple[int, int, int], ...]
"""What changes when somebody writes to a file of an artifact."""


def _stamp(folder: Path, artifact: Artifact) -> Stamp:
    status = [(folder / file).stat() for file in artifact.files]
    return tuple((s.st_size, s.st_mtime_ns, s.st_ino) for s in status)


class Draft:
    """An artifact that is being written; it is seen only after `commit`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name: str | None = None
        self.meta: dict[str, Any] = {}
        self.unsummed: set[str] = set()
        """Files of which only the size is checked."""

    def path(self, name: str) -> Path:
        """Where to write the file `name`."""
        return self.folder / name

    def large(self, name: str) -> Path:
        """As `path`, for a file that is too large to be read whole; its reader checks what it reads."""
        self.unsummed.add(name)
        return self.path(name)

    def commit(self, name: str, **meta: Any) -> None:
        """Give the artifact its name; it is published when the draft's block ends."""
        self.name = name
        self.meta = meta


class Store(Protocol):
    """Where artifacts and finished results are kept."""

    uri: str

    def find(self, kind: str, name: str) -> Artifact | None:
        """The artifact, checked by each process, and again when its files have changed.

        None if it is absent or damaged (it is then set aside); `StoreError` if the store cannot be read.
        """

    def doubt(self) -> None:
        """Check everything anew that this process finds from now on."""

    def has(self, kind: str, name: str) -> bool:
        """Whether it is there, unchecked."""

    def sound(self, kind: str, name: str) -> bool:
        """Whether it is there and need not be made: as `find`, but nothing is fetched to be looked at."""

    def names(self, kind: str) -> list[str]:
        """Names of all artifacts of a kind, sorted."""

    def draft(self, kind: str) -> Any:
        """Context manager that yields a `Draft` and publishes it when it was committed.

        Leaves nothing behind if it fails; `StoreError` if the store is full or cannot be written.
        """

    def remove(self, kind: str, name: str) -> None:
        """Delete an artifact, if it is there."""

    def append_results(self, dataset: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Keep finished results; durable on return."""

    def results(self, dataset: str) -> Iterator[dict[str, Any]]:
        """All finished results on a dataset, in no particular order."""


def get(store: Store, kind: str, name: str) -> Artifact:
    """The artifact, which must be there; `ArtifactError` otherwise."""
    artifact = store.find(kind, name)
    if artifact is None:
        shown = without_password(store.uri)
        raise ArtifactError(f"{kind}/{name} is not in the store {shown}, or is damaged")
    return artifact


def open_store(uri: str | os.PathLike[str]) -> Store:
    """The store at a folder or at a URI that pyarrow.fs opens (s3://, gs://, file://, ...)."""
    text = os.fspath(uri)
    if "://" not in text:
        return _local(Path(text).absolute())
    try:
        filesystem, root = fs.FileSystem.from_uri(text)
    except (ValueError, OSError) as error:
        shown = without_password(text)
        reason = " ".join(str(error).replace(text, shown).split())
        raise InputError(
            f"the store {shown!r} cannot be opened: {reason}; give a folder or "
            "a URI such as s3://bucket/folder"
        ) from None
    if not root.strip("/"):
        raise InputError(
            f"the store {without_password(text)!r} names no bucket and no folder; give a folder or "
            "a URI such as s3://bucket/folder"
        )
    if isinstance(filesystem, fs.LocalFileSystem):
        return _local(Path(root))
    from raydc.remote_store import RemoteStore, cache_of

    return RemoteStore(text, filesystem, root, cache_of(text))


def _local(root: Path) -> LocalStore:
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"the store is {str(root)!r}, which cannot be made ({error.strerror}); give a folder (store.uri, "
            "--store or RAYDC_STORE)"
        ) from None
    store = LocalStore(root)
    store.sweep()
    return store


class LocalStore:
    """A store in a folder; several processes may use it at once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.uri = str(root)
        self._checked: dict[tuple[str, str], tuple[Artifact, Stamp]] = {}

    def writing(self) -> AbstractContextManager[None]:
        """Raise `StoreError` for what cannot be written here."""
        return writing_store(self.root)

    def _folder(self, kind: str, name: str) -> Path:
        return self.root / kind / name

    def has(self, kind: str, name: str) -> bool:
        return (self._folder(kind, name) / MANIFEST).is_file()

    def sound(self, kind: str, name: str) -> bool:
        return self.find(kind, name) is not None

    def names(self, kind: str) -> list[str]:
        folder = self.root / kind
        if not folder.is_dir():
            return []
        return sorted(p.name for p in folder.iterdir() if (p / MANIFEST).is_file())

    def find(self, kind: str, name: str) -> Artifact | None:
        known, stamp = self._checked.get((kind, name), (None, ()))
        folder = self._folder(kind, name)
        try:
            if known is not None and known.path(MANIFEST).is_file() and _stamp(folder, known) == stamp:
                return known
            artifact = self._read(folder)
            stamp = _stamp(folder, artifact)
        except FileNotFoundError:
            if folder.is_dir():
                self._set_aside(folder, "a file is missing")
            return None
        except (ValueError, KeyError, TypeError, AttributeError, ArtifactError) as error:
            self._set_aside(folder, str(error))
            return None
        except OSError as error:
            raise StoreError(
                f"the store {self.uri!r} cannot be read ({error.strerror}); see to it and run the study again"
            ) from error
        self._checked[kind, name] = artifact, stamp
        return artifact

    @staticmethod
    def _read(folder: Path) -> Artifact:
        """The artifact in a folder, checked; raises what is wrong with it."""
        manifest = parse_json((folder / MANIFEST).read_text())
        for file, (size, crc) in manifest["files"].items():
            check_file(folder / plain(file), size, crc)
        return Artifact(folder, manifest["meta"], tuple(manifest["files"]))

    def doubt(self) -> None:
        self._checked.clear()

    def _set_aside(self, folder: Path, reason: str) -> None:
        logger.warning("%s is damaged (%s) and is made again", folder, reason)
        aside = folder.with_name(f".damaged-{folder.name}-{uuid.uuid4().hex[:8]}")
        try:
            with self.writing():
                folder.rename(aside)
        except FileNotFoundError:
            return  # another process was faster
        shutil.rmtree(aside, ignore_errors=True)

    @contextmanager
    def draft(self, kind: str) -> Iterator[Draft]:
        folder = self.root / kind / f".draft-{uuid.uuid4().hex}"
        draft = Draft(folder)
        try:
            with self.writing():
                folder.mkdir(parents=True)
                yield draft
                if draft.name is not None:
                    self._publish(draft, self._folder(kind, draft.name))
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def sweep(self) -> None:
        """Remove what killed processes left unfinished, once it is old enough to be nobody's."""
        for folder in self.root.glob("*/.draft-*"):
            try:
                if time.time() - folder.stat().st_mtime > STALE_SECONDS:
                    shutil.rmtree(folder, ignore_errors=True)
            except FileNotFoundError:
                continue

    @staticmethod
    def _publish(draft: Draft, target: Path) -> None:
        files = {
            p.name: (p.stat().st_size, None if p.name in draft.unsummed else checksum(p))
            for p in draft.folder.iterdir()
        }
        for name in files:
            sync(draft.folder / name)
        text = json.dumps({"files": files, "meta": draft.meta}, indent=1, allow_nan=False)
        write_atomically(draft.folder / MANIFEST, text.encode())
        try:
            draft.folder.rename(target)
        except OSError:
            if not (target / MANIFEST).is_file():
                raise
            # Another process made the same artifact first; equal names mean equal contents.
        sync(target.parent)

    def remove(self, kind: str, name: str) -> None:
        self._checked.pop((kind, name), None)
        folder = self._folder(kind, name)
        aside = folder.with_name(f".removed-{folder.name}-{uuid.uuid4().hex[:8]}")
        try:
            with self.writing():
                folder.rename(aside)
        except FileNotFoundError:
            return
        shutil.rmtree(aside, ignore_errors=True)

    def append_results(self, dataset: str, rows: Sequence[Mapping[str, Any]]) -> None:
        if rows:
            path = self.root / "results" / dataset / f"{uuid.uuid4().hex}.jsonl"
            with self.writing():
                write_atomically(path, lines_of(rows))

    def results(self, dataset: str) -> Iterator[dict[str, Any]]:
        folder = self.root / "results" / dataset
        for path in sorted(folder.glob("*.jsonl")) if folder.is_dir() else ():
            yield from parse_lines(path.read_bytes(), str(path))


def lines_of(rows: Sequence[Mapping[str, Any]]) -> bytes:
    return b"".join(json.dumps(row, allow_nan=False).encode() + b"\n" for row in rows)


def parse_lines(content: bytes, path: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(content.splitlines(), 1):
        try:
            row = parse_json(line)
        except ValueError:
            row = None
        if not isinstance(row, dict) or not isinstance(row.get("evaluation_id"), str):
            logger.warning("%s line %d is damaged and is passed over", path, number)
            continue
        yield row
