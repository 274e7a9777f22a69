"""Detection of disks that are full, read-only or disconnected, as errors of one sentence; hashes of files.

Libraries report these errors in different ways: pyarrow by the errno of an OSError, safetensors and SQLite in
the text of their own errors, numpy by "8192 requested and 4096 written", where only the free space shows the
cause.
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
"""A disk with less free space than this counts as full."""


def add_to_hash(hasher: hashlib._Hash, file: Path) -> None:
    """Add the contents of a file to a hash.

    Raises `OSError` if the file cannot be read, or is a device or a pipe, which may never end.
    """
    kind = file.stat().st_mode
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
        raise OSError(errno.EINVAL, "it is a device or a pipe, not a file", str(file))
    with file.open("rb") as opened:
        while block := opened.read(1 << 22):
            hasher.update(block)


def fault(error: BaseException, folder: Path) -> str | None:
    """Why files in `folder` cannot be written, if this is the cause of `error`; else None."""
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
    """Whether an error is about a file in `folder`; without a file name, whether it means a full disk."""
    if not isinstance(error.filename, str):
        return error.errno in FULL
    return Path(error.filename).is_relative_to(folder)


def _free_bytes(folder: Path) -> int:
    """Free space on the disk of `folder`, which need not exist."""
    existing = next((path for path in (folder, *folder.parents) if path.is_dir()), Path("/"))
    status = os.statvfs(existing)
    return status.f_bavail * status.f_frsize


@contextmanager
def writing_store(root: Path, what: str = "the store", instead: str = "give another store") -> Iterator[None]:
    """Raise `StoreError` if the folder `root` cannot be written; `what` is its name in messages."""
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
    """Raise `FolderError` if the study's folder `out` cannot be written."""
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
