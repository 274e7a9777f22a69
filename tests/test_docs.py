"""The code of the guides runs as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"


def code_of(guide: str) -> str:
    """The Python blocks of a guide, one after the other."""
    blocks = re.findall(r"^```python\n(.*?)^```", (DOCS / guide).read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    return "\n".join(blocks)


def test_what_the_page_of_faults_names_is_there() -> None:
    page = (DOCS / "faults.md").read_text()
    named = set(re.findall(r"`(tests/[a-z_/]+\.py)`", page))
    assert len(named) > 8
    assert [name for name in sorted(named) if not (DOCS.parent / name).is_file()] == []


@pytest.mark.command
@pytest.mark.ray
@pytest.mark.slow
def test_the_guide_to_python_runs(tmp_path: Path) -> None:
    environment = {**os.environ, "RAYDC_STORE": str(tmp_path / "store")}
    ran = subprocess.run(
        [sys.executable, "-c", code_of("python.md")],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "accuracy.pdf").read_bytes().startswith(b"%PDF")
    assert re.search(r"soft +1 +0\.\d+", ran.stdout)
    assert "do as well as" in ran.stdout
