"""The study files that are part of raydc (search_spaces/), found by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from raydc.errors import InputError, did_you_mean


@dataclass(frozen=True)
class Shipped:
    """A study file that is part of raydc."""

    name: str
    path: Path
    summary: str
    """First line of the file's header."""


def folder() -> Path:
    """The folder search_spaces: inside the installed package, or next to it in a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "search_spaces"
    return inside if inside.is_dir() else package.parent / "search_spaces"


def studies() -> list[Shipped]:
    """All study files that are part of raydc, sorted by name."""
    found = []
    for path in sorted(folder().glob("*.yaml")):
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        found.append(Shipped(path.stem, path, first.removeprefix("#").strip()))
    return found


def find(study: str) -> Path:
    """The file of a study that is given as a path or as the name of a study file of raydc."""
    path = Path(study)
    if path.is_file():
        return path
    names = {shipped.name: shipped.path for shipped in studies()}
    if study in names:
        return names[study]
    if path.is_dir():
        raise InputError(f"{study}: it is a folder, but a study is a file; give the file")
    raise InputError(
        f"{study}: there is no such study file, and no study of that name comes with raydc"
        f"{did_you_mean(study, names)}; `raydc list studies` shows them"
    )
