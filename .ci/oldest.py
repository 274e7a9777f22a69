"""The oldest dependencies that pyproject.toml allows, as constraints of pip: one `name==lower` a line.

    python .ci/oldest.py > oldest.txt && PIP_CONSTRAINT=oldest.txt make install

Needs the standard library only, so that it runs before anything is installed.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"
REQUIREMENT = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(\[[^]]*\])?\s*(?P<bounds>([<>=!~]=?\s*[^,;\s]+[\s,]*)*)(?P<marker>;.*)?"
)
LOWER = re.compile(r">=\s*([^,\s]+)")


def requirements(project: Mapping[str, Any]) -> list[str]:
    """All requirements of a `[project]` table, those of extras among them."""
    extras: Mapping[str, list[str]] = project.get("optional-dependencies", {})
    return [*project["dependencies"], *(line for lines in extras.values() for line in lines)]


def constraints(lines: Iterable[str]) -> list[str]:
    """`name==lower` for each requirement that has a lower bound, in order, each once.

    Raises `ValueError` for a requirement that cannot be read, and for a name with two lower bounds.
    """
    found: dict[str, str] = {}
    for line in lines:
        parts = REQUIREMENT.fullmatch(line.strip())
        if parts is None:
            raise ValueError(f"{line!r} is not a requirement of the form name>=lower,<upper; marker")
        lower = LOWER.search(parts["bounds"])
        if lower is None:
            continue
        name = re.sub(r"[-_.]+", "-", parts["name"]).lower()
        constraint = f"{name}=={lower[1]}{parts['marker'] or ''}"
        if found.setdefault(name, constraint) != constraint:
            raise ValueError(f"{name} has two lower bounds: {found[name]} and {constraint}")
    return list(found.values())


if __name__ == "__main__":
    with PYPROJECT.open("rb") as file:
        print("\n".join(constraints(requirements(tomllib.load(file)["project"]))))
