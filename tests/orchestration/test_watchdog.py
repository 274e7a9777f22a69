"""The watchdog: a process that works too long is ended, and so is one that does nothing at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.command

WORKER = """
import ctypes, os, sys, time
from raydc.orchestration.watchdog import Watchdog

watchdog = Watchdog(1.0)
print("begun", flush=True)
sys.stdin.readline()
if sys.argv[1] == "quick":
    for _ in range(8):
        with watchdog:
            time.sleep(0.25)
elif sys.argv[1] == "together":
    with watchdog.for_(10):
        time.sleep(2)
elif sys.argv[1] == "slow":
    with watchdog:
        time.sleep(60)
elif sys.argv[1] == "holds the interpreter":
    ctypes.PyDLL(None).sleep(60)
else:
    time.sleep(60)
"""


def start(what: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", WORKER, what]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == b"begun\n"
    process.stdin.write(b"\n")
    return process


@pytest.mark.parametrize(
    ("what", "code"),
    [("quick", 0), ("together", 0), ("slow", 1), ("holds the interpreter", -signal.SIGKILL)],
)
def test_an_evaluation_has_its_time_and_no_more(what: str, code: int) -> None:
    assert start(what).wait(timeout=30) == code


def test_a_process_that_is_stopped_between_evaluations_is_killed() -> None:
    process = start("stopped")
    began = time.monotonic()
    os.kill(process.pid, signal.SIGSTOP)
    assert process.wait(timeout=30) == -signal.SIGKILL
    assert time.monotonic() - began > 0.5
