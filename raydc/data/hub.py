"""Datasets on the Hugging Face hub: files that are fetched once, on demand, and then read like any folder."""

from __future__ import annotations

import re
from pathlib import Path

from raydc.errors import InputError

PREFIX = "hub:"
"""Beginning of a path that names a dataset on the hub."""
FILES = ("*.parquet", "*.png", "*.jpg", "*.jpeg", "*.JPEG")
"""What is fetched: data, never code."""


def hub_folder(key: str, name: str, download: bool) -> Path:
    """The folder of the dataset OWNER/NAME, or OWNER/NAME@REVISION, in the hub's cache on this machine.

    `download` fetches what is missing. Raises `InputError`, which says that `key` names it, if the name is
    none, if it is not in the cache and may not be fetched, or if the hub does not give it.
    """
    match = re.fullmatch(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", name)
    if match is None:
        raise InputError(
            f"{key} is {name!r}, but must be OWNER/NAME or OWNER/NAME@REVISION, as the hub writes it"
        )
    # Here, because it comes with timm and takes long to import.
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
        remedy = "the hub cannot be reached" if download else "fetch it with --download"
        raise InputError(
            f"{key} is {name!r}, which is not in the hub's cache on this machine; {remedy}"
        ) from None
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{key} is {name!r}, which the hub does not give ({reason}); check the name"
        ) from None
    return Path(folder)


def located(key: str, path: str, download: bool = False) -> Path:
    """The file or folder that `path` names: on this machine, or `hub:OWNER/NAME` in the hub's cache."""
    if path.startswith(PREFIX):
        return hub_folder(key, path.removeprefix(PREFIX), download)
    return Path(path)
