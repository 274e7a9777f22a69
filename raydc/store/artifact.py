"""The store: artifacts by kind and name, built once, checked when read, rebuilt when damaged.

An artifact is a folder of files with a manifest of their sizes, CRC-32 sums and metadata. Local
stores write to a temporary folder, fsync and rename; object stores upload the files and the
manifest last, and keep a checked copy in a local cache. So an artifact is either complete or
absent, even if a process is killed at any time.

    store/KIND/NAME/manifest.json   with the files of the artifact
    store/results/DATASET/*.jsonl   finished results, appended in segments
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from raydc.errors import ArtifactError, without_password

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
BLOCK = 1 << 22


def checksum(path: Path) -> str:
    """CRC-32 of a file as 8 hexadecimal digits (3 GB/s: it is read at every start)."""
    crc = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            crc = zlib.crc32(block, crc)
    return f"{crc:08x}"


def check_file(path: Path, size: int, crc: str | None) -> None:
    """Raise `ArtifactError` unless a file has the size and, if `crc` is given, the checksum."""
    if path.stat().st_size != size or (crc is not None and checksum(path) != crc):
        raise ArtifactError(f"{path.name} does not have the bytes that were written")


def plain(name: str) -> str:
    """Return a file name of a manifest; `ArtifactError` if it points outside the artifact's folder."""
    if Path(name).name != name or name in ("", ".."):
        raise ArtifactError(f"{name!r} is not a plain file name")
    return name


@dataclass(frozen=True)
class Artifact:
    """A complete, checked artifact on this machine's disk."""

    folder: Path
    meta: Mapping[str, Any]
    """Metadata from its manifest: its inputs, and measurements made during its creation."""
    files: tuple[str, ...]
    """Names of its files, except the manifest."""

    def path(self, name: str) -> Path:
        return self.folder / name

    def noted(self, key: str) -> Any:
        """The value of `key` in its manifest; `ArtifactError` if the manifest has no such key."""
        try:
            return self.meta[key]
        except (KeyError, TypeError):
            raise ArtifactError(
                f"{self.path(MANIFEST)} has no key {key!r}; remove the folder {str(self.folder)!r}, and it "
                "is made again"
            ) from None


class Draft:
    """An artifact that is being written; it becomes visible only after `commit`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name: str | None = None
        self.meta: dict[str, Any] = {}
        self.unsummed: set[str] = set()
        """Files for which only the size is checked."""

    def path(self, name: str) -> Path:
        """Where to write the file `name`."""
        return self.folder / name

    def large(self, name: str) -> Path:
        """As `path`, for a file too large to be checked in full; its reader checks the parts that it
        reads."""
        self.unsummed.add(name)
        return self.path(name)

    def commit(self, name: str, **meta: Any) -> None:
        """Give the artifact its name; it is published when the draft's block ends."""
        self.name = name
        self.meta = meta


class Store(Protocol):
    """Storage for artifacts and finished results."""

    uri: str

    def find(self, kind: str, name: str) -> Artifact | None:
        """The artifact, checked once by each process, and again when its files have changed.

        None if it is absent or damaged (it is then removed); `StoreError` if the store cannot be read.
        """

    def recheck(self) -> None:
        """Forget all checks, so that this process checks every artifact again."""

    def has(self, kind: str, name: str) -> bool:
        """Whether the artifact exists, without checking it."""

    def is_intact(self, kind: str, name: str) -> bool:
        """Whether the artifact exists and is intact: as `find`, but without downloading it."""

    def names(self, kind: str) -> list[str]:
        """Names of all artifacts of a kind, sorted."""

    def draft(self, kind: str) -> Any:
        """Context manager that yields a `Draft` and publishes it if it was committed.

        Leaves nothing behind if it fails; `StoreError` if the store is full or cannot be written.
        """

    def remove(self, kind: str, name: str) -> None:
        """Delete an artifact, if it exists."""

    def append_results(self, dataset: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Store finished results; durable on return."""

    def results(self, dataset: str) -> Iterator[dict[str, Any]]:
        """All finished results on a dataset, in no particular order."""


def get(store: Store, kind: str, name: str) -> Artifact:
    """The artifact; `ArtifactError` if it is absent or damaged."""
    artifact = store.find(kind, name)
    if artifact is None:
        shown = without_password(store.uri)
        raise ArtifactError(f"{kind}/{name} is not in the store {shown}, or is damaged")
    return artifact
