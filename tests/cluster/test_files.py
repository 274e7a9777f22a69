"""What holds for every file of cluster/: scripts that parse, no open address, no secret, a token."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.launchers import FILES, KUBERNETES, RAY_UP, ROOT, SCRIPTS, name

SECRET = re.compile(
    r"AKIA[0-9A-Z]{16}|-----BEGIN|eyJ[A-Za-z0-9_-]{20,}|ghp_\w{20,}|\b[0-9a-f]{32,}\b"
    # A value that is neither a reference ($...), nor a file, nor the name of a key.
    r"|(?:PASSWORD|TOKEN|SECRET_KEY|ACCESS_KEY)\s*[=:]\s*[\"']?(?!\$|\"?\$|disabled)[A-Za-z0-9+/]{6,}"
)


@pytest.mark.command
@pytest.mark.parametrize("path", SCRIPTS, ids=name)
def test_scripts_parse(path: Path) -> None:
    subprocess.run(["bash", "-n", str(path)], check=True)
    assert "set -euo pipefail" in path.read_text()


@pytest.mark.command
@pytest.mark.parametrize("path", SCRIPTS, ids=name)
def test_scripts_are_sound(path: Path) -> None:
    subprocess.run([Path(sys.executable).with_name("shellcheck"), path], check=True)


@pytest.mark.parametrize("path", FILES, ids=name)
def test_nothing_listens_everywhere_and_no_secret_is_written_down(path: Path) -> None:
    text = path.read_text()
    assert "0.0.0.0" not in text
    assert "pkill" not in text
    assert "killall" not in text
    assert SECRET.search(text) is None


def test_a_secret_would_be_seen() -> None:
    for text in (
        "MLFLOW_AUTH_ADMIN_PASSWORD=hunter22",
        'RAY_AUTH_TOKEN: "abcdef12"',
        "AKIAABCDEFGHIJKLMNOP",
        "0" * 32,
    ):
        assert SECRET.search(text) is not None, text


STARTERS = [
    *RAY_UP,
    *(p for p in SCRIPTS if "ray start" in p.read_text() or "symmetric-run" in p.read_text()),
]


@pytest.mark.parametrize("path", STARTERS, ids=name)
def test_the_token_is_asked_for(path: Path) -> None:
    assert "export RAY_AUTH_MODE=token" in path.read_text()


def test_every_launcher_is_explained() -> None:
    said = (ROOT / "README.md").read_text()
    for path in (*RAY_UP, *KUBERNETES, *SCRIPTS):
        assert path.name in said, path
