"""The audit of dependencies never takes silence for soundness."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

AUDIT = Path(__file__).parents[2] / ".ci" / "audit.py"
SOUND = {"name": "a", "version": "1", "vulns": []}
WEAK = {"name": "b", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"]}]}
SKIPPED = {"name": "c", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("packages", "said", "code"),
    [
        ([], "Not audited: no database", 0),
        ([SKIPPED], "Not audited: no database", 0),
        ([SOUND], "1 packages audited, 0 known weaknesses.", 0),
        ([SOUND, SKIPPED], "Not audited, since the database does not have them: c.", 0),
        ([SOUND, WEAK], "b 2: CVE-1, mended in 3", 1),
    ],
)
def test_the_verdict(packages: list[dict[str, Any]], said: str, code: int) -> None:
    lines, exit_code = runpy.run_path(str(AUDIT))["verdict"](packages)
    assert said in "\n".join(lines)
    assert exit_code == code
