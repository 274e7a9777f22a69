"""A watchdog: ends a process whose evaluation takes longer than it may, also one that hangs as a whole.

thread of the process   ends it when an evaluation is over its time, else barks to the guard
guard, beside it        kills it when it has not barked for that time: it was stopped, or something
                        holds the interpreter
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

BARK_SECONDS = 0.2
GUARD = """
import os, select, signal, sys
process, limit = int(sys.argv[1]), float(sys.argv[2])
while select.select([0], [], [], limit)[0]:
    if not os.read(0, 4096):
        sys.exit()  # it has ended
if os.getppid() == process:
    os.kill(process, signal.SIGKILL)
"""


class Watchdog:
    """Ends this process when one evaluation takes longer than `limit_seconds`; None sets no limit."""

    def __init__(self, limit_seconds: float | None) -> None:
        self._limit = limit_seconds
        self._deadline: float | None = None
        self._patience = 1
        if limit_seconds is not None:
            guard = _guard(limit_seconds)
            threading.Thread(target=self._watch, args=(guard,), daemon=True).start()

    def for_(self, evaluations: int) -> Watchdog:
        """The same watchdog, patient for so many evaluations that go on together."""
        self._patience = evaluations
        return self

    def __enter__(self) -> None:
        if self._limit is not None:
            self._deadline = time.monotonic() + self._limit * self._patience

    def __exit__(self, *_: object) -> None:
        self._deadline = None

    def _watch(self, guard: subprocess.Popen[bytes]) -> None:
        assert guard.stdin is not None
        while True:
            time.sleep(BARK_SECONDS)
            deadline = self._deadline
            late = deadline is not None and time.monotonic() > deadline
            # Without its guard it is not looked after, so another process takes its place.
            if late or guard.poll() is not None:
                os._exit(124)
            guard.stdin.write(b".")


def _guard(limit_seconds: float) -> subprocess.Popen[bytes]:
    """A process that kills this one when it has not heard of it for so long."""
    command = [sys.executable, "-S", "-c", GUARD, str(os.getpid()), str(limit_seconds)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, bufsize=0)
