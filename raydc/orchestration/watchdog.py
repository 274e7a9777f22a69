"""A watchdog: ends a process whose evaluation exceeds its time limit, even if the whole process hangs.

faulthandler, a C thread      ends it when an evaluation exceeds its time; the stacks go to its log
guard, a second process       kills it when its thread has sent no signal for that time
"""

from __future__ import annotations

import faulthandler
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress

STDERR = 2
BARK_SECONDS = 0.2
GUARD = """
import os, select, signal, sys
process, silence = int(sys.argv[1]), float(sys.argv[2])
while select.select([0], [], [], silence)[0]:
    heard = os.read(0, 4096).split()
    if not heard:
        sys.exit()  # it has ended
    silence = float(heard[-1])
if os.getppid() == process:
    os.kill(process, signal.SIGKILL)
"""
"""Source of the guard process; each line on its stdin sets the time that it waits for the next one."""


class Watchdog:
    """Ends this process when one evaluation takes longer than `limit_seconds`; None sets no limit."""

    def __init__(self, limit_seconds: float | None) -> None:
        self._limit = limit_seconds
        self._patience = 1
        if limit_seconds is not None:
            command = [sys.executable, "-S", "-c", GUARD, str(os.getpid()), str(limit_seconds)]
            guard = subprocess.Popen(command, stdin=subprocess.PIPE, bufsize=0)
            threading.Thread(target=self._bark, args=(guard, limit_seconds), daemon=True).start()

    def for_(self, evaluations: int) -> Watchdog:
        """The same watchdog, with the time limit of `evaluations` evaluations that run together."""
        self._patience = evaluations
        return self

    def __enter__(self) -> None:
        if self._limit is not None:
            faulthandler.dump_traceback_later(self._limit * self._patience, exit=True, file=STDERR)

    def __exit__(self, *_: object) -> None:
        faulthandler.cancel_dump_traceback_later()

    def _bark(self, guard: subprocess.Popen[bytes], limit_seconds: float) -> None:
        assert guard.stdin is not None
        with suppress(BrokenPipeError):
            while guard.poll() is None:
                guard.stdin.write(f"{limit_seconds * self._patience}\n".encode())
                time.sleep(BARK_SECONDS)
        os._exit(1)  # the guard is gone; another process takes over
