"""Datasets on the Hugging Face hub: downloaded once, on demand, and then read like a local folder."""

from __future__ import annotations

import re
from pathlib import Path

from raydc.errors import InputError

PREFIX = "hub:"
"""Prefix of a path that refers to a dataset on the hub."""
FILES = ("*.parquet", "*.png", "*.jpg", "*.jpeg", "*.JPEG")
"""Files that are downloaded: data, never code."""


def hub_folder(key: str, name: str, download: bool) -> Path:
    """The folder of the dataset OWNER/NAME, or OWNER/NAME@REVISION, in the hub's cache on this machine.

    `download`: download missing files. Raises `InputError` for `key` if the name is invalid, if the dataset
    is not in the cache and may not be downloaded, or if the hub does not provide it.
    """
    match = re.fullmatch(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", name)
    if match is None:
        raise InputError(f"{key} is {name!r}, but must be OWNER/NAME or OWNER/NAME@REVISION, as on the hub")
    # Imported here because it takes long to import.
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = huggingface_hub.snapshot_download(
            match[1],
            repo_type="dataset",
            revision=match[2],
            allow_patterns=list(FILES),
            local_files_only=not download,
        )
    except LocalEntryNotFoundError:
        remedy = "the hub cannot be reached" if download else "download it with --download"
        raise InputError(
            f"{key} is {name!r}, which is not in the hub's cache on this machine; {remedy}"
        ) from None
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{key} is {name!r}, which the hub does not provide ({reason}); check the name"
        ) from None
    return Path(folder)


def located(key: str, path: str, download: bool = False) -> Path:
    """The local file or folder of `path`, which may be `hub:OWNER/NAME`, a dataset in the hub's cache."""
    if path.startswith(PREFIX):
        return hub_folder(key, path.removeprefix(PREFIX), download)
    return Path(path)
