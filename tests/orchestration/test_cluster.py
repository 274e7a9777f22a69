"""The connection to Ray ends without ending the process."""

from __future__ import annotations

import subprocess
import sys

import pytest

ENDING = """
import gc, threading, time
import ray
from raydc.orchestration.cluster import connected
from raydc.spec.study_file import Resources

class Ring:
    def __init__(self, held):
        self.held, self.me = held, self

def leave_garbage():
    while held:
        Ring(held.pop())
        time.sleep(0.0002)

with connected(None, Resources()):
    held = [ray.put(number) for number in range(10_000)]
    gc.set_threshold(20, 2, 2)
    threading.Thread(target=leave_garbage, daemon=True).start()
print(f"went on, {len(held)} left, {ray.is_initialized()=}")
"""


@pytest.mark.command
@pytest.mark.ray
def test_garbage_of_another_thread_does_not_end_the_process() -> None:
    """Ray's own end kills a process whose threads let go of its objects meanwhile."""
    ended = subprocess.run([sys.executable, "-c", ENDING], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert "went on" in ended.stdout
    assert "went on, 0 left" not in ended.stdout  # there was garbage until the end
    assert "ray.is_initialized()=False" in ended.stdout
