"""What the shell completes after `raydc --install-completion`: names that depend on what is here."""

from __future__ import annotations

from pathlib import Path

from raydc.spec import shipped

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
"""What `raydc list` lists."""


def kinds(incomplete: str) -> list[str]:
    """What `raydc list` lists."""
    return [kind for kind in KINDS if kind.startswith(incomplete)]


def studies(incomplete: str) -> list[str]:
    """Studies that come with raydc, study files, and folders on the way to some."""
    names = [study.name for study in shipped.studies() if study.name.startswith(incomplete)]
    return [*names, *(path for path in _paths(incomplete) if path.endswith(("/", ".yaml", ".yml")))]


def folders(incomplete: str) -> list[str]:
    """Folders of studies, and folders on the way to some; the former end without a slash."""
    from raydc.tracking import study_folder  # takes long to import

    found = [path for path in _paths(incomplete) if path.endswith("/")]
    return [path.rstrip("/") if (Path(path) / study_folder.STUDY).is_file() else path for path in found]


def reproductions(incomplete: str) -> list[str]:
    """Tables and claims of papers."""
    from raydc.report.reproduce import names

    return [name for name in names() if name.startswith(incomplete)]


def _paths(incomplete: str) -> list[str]:
    """Paths that begin so, as they were begun; those of folders end in a slash."""
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
