"""Processes that a benchmark starts and ends: their ports, environment and descendants.

Only processes that descend from one started here are stopped, by their id.
"""

from __future__ import annotations

import os
import random
import socket
import sys
from collections.abc import Iterable
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
START_SECONDS = 180.0
"""How long a service may take to start on a busy machine."""
PORTS = (20_000, 32_000)
"""Range of ports below the kernel's ephemeral ports and above those of Ray's workers."""
FRESH = ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
"""Environment variables of other clusters, which are removed for started processes."""


def free_ports(count: int) -> int:
    """The first of `count` consecutive free ports."""
    while True:
        first = random.randrange(*PORTS)
        try:
            for port in range(first, first + count):
                with socket.socket() as free:
                    free.bind(("", port))
        except OSError:
            continue
        return first


def environment(**more: str) -> dict[str, str]:
    """This process's environment with raydc's root on the path and without variables of other clusters."""
    kept = {name: value for name, value in os.environ.items() if name not in FRESH}
    binaries = Path(sys.executable).parent
    path = f"{binaries}{os.pathsep}{os.environ['PATH']}"
    return {**kept, "PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **more}


def descendants(roots: Iterable[int]) -> list[psutil.Process]:
    """The running processes among `roots` and all their descendants."""
    found: list[psutil.Process] = []
    for root in roots:
        try:
            process = psutil.Process(root)
            found += [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            continue
    return found


def title(process: psutil.Process) -> str:
    """Title of a process, such as `ray::TeacherActor.label`; empty if it has ended."""
    try:
        return " ".join(process.cmdline()).strip()
    except psutil.Error:
        return ""


def kill(processes: Iterable[psutil.Process]) -> None:
    """SIGKILL the processes that still run; an id that was reused by another process is left alone."""
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
