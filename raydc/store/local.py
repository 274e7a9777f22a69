"""A store in a folder."""

from __future__ import annotations

import json
import logging
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from raydc.errors import ArtifactError, StoreError
from raydc.files.atomic import sync, write_atomically
from raydc.files.full_disk import writing_store
from raydc.files.plain_json import parse_json
from raydc.store.artifact import MANIFEST, Artifact, Draft, check_file, checksum, plain

logger = logging.getLogger(__name__)


STALE_SECONDS = 48 * 3600.0
"""Age after which an unfinished artifact is assumed to be left by a killed process."""


Stamp = tuple[tuple[int, int, int], ...]
"""(size, modification time, inode) of each file; changes when a file of an artifact is written."""


def _stamp(folder: Path, artifact: Artifact) -> Stamp:
    status = [(folder / file).stat() for file in artifact.files]
    return tuple((s.st_size, s.st_mtime_ns, s.st_ino) for s in status)


class LocalStore:
    """A store in a folder; several processes may use it at once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.uri = str(root)
        self._checked: dict[tuple[str, str], tuple[Artifact, Stamp]] = {}

    def writing(self) -> AbstractContextManager[None]:
        """Context manager that turns write errors into `StoreError`."""
        return writing_store(self.root)

    def _folder(self, kind: str, name: str) -> Path:
        return self.root / kind / name

    def has(self, kind: str, name: str) -> bool:
        return (self._folder(kind, name) / MANIFEST).is_file()

    def is_intact(self, kind: str, name: str) -> bool:
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
                f"the store {self.uri!r} cannot be read ({error.strerror}); fix this and run the study again"
            ) from error
        self._checked[kind, name] = artifact, stamp
        return artifact

    @staticmethod
    def _read(folder: Path) -> Artifact:
        """Read and check the artifact in a folder; raises an error if it is damaged."""
        manifest = parse_json((folder / MANIFEST).read_text())
        for file, (size, crc) in manifest["files"].items():
            check_file(folder / plain(file), size, crc)
        return Artifact(folder, manifest["meta"], tuple(manifest["files"]))

    def recheck(self) -> None:
        self._checked.clear()

    def _set_aside(self, folder: Path, reason: str) -> None:
        logger.warning("%s is damaged (%s) and will be rebuilt", folder, reason)
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
        """Remove unfinished artifacts of killed processes that are older than STALE_SECONDS."""
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
            logger.warning("%s line %d is damaged and is skipped", path, number)
            continue
        yield row
