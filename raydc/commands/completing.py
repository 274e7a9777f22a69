"""Shell completion (`raydc --install-completion`) of studies, folders, kinds and reproductions."""

from __future__ import annotations

from pathlib import Path

from raydc.spec import shipped_studies

KINDS = (
    "datasets",
    "methods",
    "scores",
    "labels",
    "recipes",
    "augmentations",
    "losses",
    "schedules",
    "optimizers",
    "networks",
    "codecs",
    "trackers",
    "studies",
    "reproductions",
)
"""Kinds that `raydc list` lists."""


def kinds(incomplete: str) -> list[str]:
    """Kinds that `raydc list` lists."""
    return [kind for kind in KINDS if kind.startswith(incomplete)]


def studies(incomplete: str) -> list[str]:
    """Studies that come with raydc, study files, and folders that may contain some."""
    names = [study.name for study in shipped_studies.studies() if study.name.startswith(incomplete)]
    return [*names, *(path for path in _paths(incomplete) if path.endswith(("/", ".yaml", ".yml")))]


def folders(incomplete: str) -> list[str]:
    """Folders of studies, without a slash at the end, and other folders, which may contain some."""
    from raydc.tracking import study_folder  # takes long to import

    found = [path for path in _paths(incomplete) if path.endswith("/")]
    return [path.rstrip("/") if (Path(path) / study_folder.STUDY).is_file() else path for path in found]


def reproductions(incomplete: str) -> list[str]:
    """Names of reproductions: tables and claims of papers."""
    from raydc.report.reproduce import names

    return [name for name in names() if name.startswith(incomplete)]


def _paths(incomplete: str) -> list[str]:
    """Paths that start with `incomplete`, in the same spelling; those of folders end in a slash."""
    parent, _, start = incomplete.rpartition("/")
    place = Path(f"{parent}/" if "/" in incomplete else ".")
    if not place.is_dir():
        return []
    lead = incomplete[: len(incomplete) - len(start)]
    found = sorted(path for path in place.iterdir() if path.name.startswith(start))
    return [
        f"{lead}{path.name}{'/' if path.is_dir() else ''}"
        for path in found
        if start or not path.name.startswith(".")
    ]
