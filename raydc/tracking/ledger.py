"""The ledger: the append-only file of a study's results.

`ledger.jsonl` has one row per line, each with its CRC-32. A result counts as finished when its line is on the
disk. An incomplete last line, left by a killed process, is removed when the ledger is next opened for
writing. A damaged line is skipped, so its evaluation runs again.
"""

from __future__ import annotations

import json
import logging
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from raydc.errors import FolderError, InputError
from raydc.files.atomic import cut_torn_line
from raydc.files.full_disk import writing_folder
from raydc.files.plain_json import parse_json
from raydc.spec.result import FINISHED, Row, compact, untested

logger = logging.getLogger(__name__)

FILE = "ledger.jsonl"


def encode(row: Mapping[str, Any]) -> bytes:
    """One line: the row's JSON with the CRC-32 of that JSON."""
    text = json.dumps(row, allow_nan=False, separators=(",", ":"))
    return f'{text[:-1]},"crc32":"{zlib.crc32(text.encode()):08x}"}}\n'.encode()


def decode(line: bytes) -> Row | None:
    """The row of a line, or None if its bytes are damaged."""
    try:
        row = parse_json(line)
        crc = row.pop("crc32")
        text = json.dumps(row, allow_nan=False, separators=(",", ":"))
    except (ValueError, KeyError, AttributeError, TypeError):
        return None
    return compact(row) if f"{zlib.crc32(text.encode()):08x}" == crc else None


def read_rows(folder: Path) -> dict[str, Row]:
    """The row of each evaluation by id, also while a run is writing.

    A finished and tested row is final; otherwise the last row of an evaluation is used.
    """
    rows: dict[str, Row] = {}
    for row in _read_all(folder / FILE):
        _take(rows, row)
    return rows


def _take(rows: dict[str, Row], row: Row) -> None:
    name = row["evaluation_id"]
    if name not in rows or not _is_final(rows[name]):
        rows[name] = row


def _is_final(row: Row) -> bool:
    return row["status"] == FINISHED and not untested(row)


def _read_all(path: Path) -> Iterator[Row]:
    if not path.exists():
        return
    try:
        opened = path.open("rb")
    except OSError as error:
        raise InputError(f"{path}: it cannot be read: {error.strerror}; check the folder") from None
    with opened as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            row = decode(line)
            if row is None:
                logger.warning("%s line %d is damaged and is skipped", path, number)
            else:
                yield row


class Ledger:
    """The ledger of one study's folder, open for writing; one writer at a time."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        with writing_folder(folder):
            if cut_torn_line(self.path):
                logger.warning("%s ended in an incomplete line, which was removed", self.path)
        self.rows = read_rows(folder)
        """The row of each evaluation by id."""
        with writing_folder(folder):
            self._file: IO[bytes] = self.path.open("ab", buffering=0)

    def append(self, rows: Iterable[Row]) -> None:
        """Write rows; they are on the disk on return.

        Raises `FolderError` if they cannot be written; then none of them is recorded, earlier rows are kept.
        """
        rows = list(rows)
        whole = os.fstat(self._file.fileno()).st_size
        try:
            with writing_folder(self.path.parent):
                self._write(b"".join(encode(row) for row in rows))
        except FolderError:
            with suppress(OSError):  # an incomplete line is removed when the ledger is opened next
                self._file.truncate(whole)
            raise
        for row in rows:
            _take(self.rows, row)

    def _write(self, content: bytes) -> None:
        remaining = memoryview(content)
        while remaining:  # a full disk may write only a part
            remaining = remaining[self._file.write(remaining) :]
        os.fsync(self._file.fileno())

    def finished(self) -> set[str]:
        """Ids of evaluations that are finished and tested."""
        return {name for name, row in self.rows.items() if _is_final(row)}

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
