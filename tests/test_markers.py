"""Markers tell the truth: a test that starts a process, Ray or an MLflow record without saying so fails."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import Guard, guard

RAYLET = ["/x/ray/core/src/ray/raylet/raylet", "--head"]
SERVER = [sys.executable, "-m", "mlflow", "server", "--port", "1"]


@pytest.mark.parametrize(
    ("event", "argument", "allowed", "said"),
    [
        ("subprocess.Popen", ["ls"], ("command", "ray", "compiler", "tmpfs"), "a process (ls), but has no"),
        ("subprocess.Popen", RAYLET, ("ray",), "Ray, but has no marker 'ray'"),
        ("subprocess.Popen", SERVER, ("server",), "an MLflow server, but has no marker 'server'"),
        ("os.system", "ls", ("command",), "a process (ls), but has no marker 'command'"),
        (
            "sqlite3.connect",
            "/x/mlflow.db",
            ("mlflow", "ray"),
            "an MLflow record, but has no marker 'mlflow'",
        ),
    ],
)
def test_what_a_test_starts_needs_a_marker(
    event: str, argument: object, allowed: tuple[str, ...], said: str
) -> None:
    given = ("ls", argument) if event == "subprocess.Popen" else (argument,)
    one = Guard()
    one(event, given)  # between tests, as when fixtures of a session end
    for marker in allowed:
        one.markers = {"slow", marker}
        one(event, given)
    assert one.broken == []
    one.markers = {"slow", "gpu"}
    with pytest.raises(AssertionError):
        one(event, given)
    assert len(one.broken) == 1
    assert said in one.broken[0]
    one("sqlite3.connect", ("/x/search.db",))
    one("open", ("/x/mlflow.db", "r", 0))
    assert len(one.broken) == 1


def test_the_guard_hears_of_every_process() -> None:
    """It raises before the process begins, in the test that begins it."""
    with pytest.raises(AssertionError, match="has no marker 'command'"):
        subprocess.run(["true"], check=True)
    assert len(guard.broken) == 1
    guard.broken.clear()  # or this test fails
