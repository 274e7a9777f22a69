"""Opens the store at a folder or a URI."""

from __future__ import annotations

import os
from pathlib import Path

from pyarrow import fs

from raydc.errors import InputError, without_password
from raydc.store.artifact import Store
from raydc.store.local import LocalStore


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
    from raydc.store.remote import RemoteStore, cache_of

    return RemoteStore(text, filesystem, root, cache_of(text))


def _local(root: Path) -> LocalStore:
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"the store is {str(root)!r}, which cannot be created ({error.strerror}); give a folder "
            "(store.uri, --store or RAYDC_STORE)"
        ) from None
    store = LocalStore(root)
    store.sweep()
    return store
