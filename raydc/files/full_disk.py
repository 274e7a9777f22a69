"""Disks that are full, read-only or gone: told from other errors, and said in one sentence; files as hashes.

Libraries say it in many ways: pyarrow by the number of an OSError, safetensors and SQLite in the text of
errors of their own, numpy by "8192 requested and 4096 written", where only the space that is left tells.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from raydc.errors import FolderError, RaydcError, StoreError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
REFUSED = {errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.ENXIO, errno.ENOTCONN}
SQLITE_FULL = "database or disk is full"
LEAST_BYTES = 1 << 16
"""A disk with less than this is full."""


def add_to_hash(text: hashlib._Hash, file: Path) -> None:
    """Add the contents of a file to a hash; `OSError` if it cannot be read, or is one that never ends."""
    kind = file.stat().st_mode
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
        raise OSError(errno.EINVAL, "it is a device or a pipe, not a file", str(file))
    with file.open("rb") as opened:
        while block := opened.read(1 << 22):
            text.update(block)


def fault(error: BaseException, folder: Path) -> str | None:
    """Why files in `folder` cannot be written, if that is what `error` came from."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in FULL | REFUSED and _within(cause, folder):
            return os.strerror(cause.errno)
        for reason in (*map(os.strerror, FULL), SQLITE_FULL):
            if reason in str(cause):
                return reason
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    full = not isinstance(error, FileNotFoundError) and _free_bytes(folder) < LEAST_BYTES
    return os.strerror(errno.ENOSPC) if full else None


def _within(error: OSError, folder: Path) -> bool:
    """Whether an error is of a file in `folder`; of one without a name, whether it can be of any other."""
    if not isinstance(error.filename, str):
        return error.errno in FULL
    return Path(error.filename).is_relative_to(folder)


def _free_bytes(folder: Path) -> int:
    """Free space where `folder` is, or would be."""
    there = next((path for path in (folder, *folder.parents) if path.is_dir()), Path("/"))
    status = os.statvfs(there)
    return status.f_bavail * status.f_frsize


@contextmanager
def writing_store(root: Path, what: str = "the store", instead: str = "give another store") -> Iterator[None]:
    """Raise `StoreError` for what cannot be written to the folder `root`, which messages call `what`."""
    try:
        yield
    except RaydcError:
        raise
    except Exception as error:
        if (reason := fault(error, root)) is None:
            raise
        raise StoreError(
            f"{what} {str(root)!r} cannot be written ({reason}); make space there or {instead}, and run the "
            "study again"
        ) from error


@contextmanager
def writing_folder(out: Path) -> Iterator[None]:
    """Raise `FolderError` for what cannot be written to the study's folder `out`."""
    try:
        yield
    except RaydcError:
        raise
    except Exception as error:
        reason = fault(error, out)
        if reason is None and isinstance(error, OSError):
            reason = error.strerror
        if reason is None:
            raise
        raise FolderError(
            f"the study's folder {str(out)!r} cannot be written ({reason}); make space there and run the "
            "study again"
        ) from error
