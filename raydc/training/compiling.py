"""The requirements of torch.compile: a C++ compiler that works, and a folder for compiled code.

All workers of a machine share a folder of compiled code, so each shape is compiled once. The name of the
folder contains the version of torch and the processor, since nodes with different processors may share a
disk.
"""

from __future__ import annotations

import fcntl
import os
import platform
import shlex
import shutil
import stat
import subprocess
import sys
import sysconfig
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch

EAGERLY = "students run eagerly, which is slower for long trainings"
PROBE = """\
#include <Python.h>
#include <cmath>
#include <vector>
#ifdef _OPENMP
#include <omp.h>
#endif
extern "C" double probe() { return std::vector<double>{std::exp(1.0)}[0]; }
"""
PROBE_SECONDS = 120.0
"""Time limit for compiling the probe; half a second is typical."""
ROOM_BYTES = 4 << 20
"""Smallest free space of a folder for compiled code; one network takes 3 MB."""
CPUINFO = Path("/proc/cpuinfo")
PROCESSOR_LINES = {"vendor_id", "model name", "flags", "CPU implementer", "CPU part", "Features", "cpu"}
"""Lines of CPUINFO that identify the instructions of a processor."""


def compiler() -> str | None:
    """The C++ compiler that torch.compile would use, if it works; otherwise None, see `no_compiler`.

    Each process tries the compiler once. TORCHDYNAMO_DISABLE=1 in the environment disables compilation, as
    everywhere in PyTorch.
    """
    return None if _disabled() else _tried(_chosen())[0]


def no_compiler() -> str:
    """The message why students run eagerly, if `compiler` returns None."""
    reason = "TORCHDYNAMO_DISABLE is 1" if _disabled() else _tried(_chosen())[1]
    return f"{reason}: {EAGERLY}"


def _disabled() -> bool:
    return os.environ.get("TORCHDYNAMO_DISABLE") == "1"


def _chosen() -> str:
    return os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")


@cache
def _tried(chosen: str) -> tuple[str | None, str]:
    """(path of a compiler that works, "") or (None, reason)."""
    try:
        words = shlex.split(chosen)
    except ValueError:
        words = []
    found = shutil.which(words[0]) if words else None
    if found is None:
        return None, f"no C++ compiler ({chosen or 'CXX is empty'})"
    headers = sysconfig.get_path("include")
    if not (Path(headers) / "Python.h").is_file():
        return None, f"a C++ compiler without Python's headers ({headers}/Python.h)"
    flags = ["-shared", "-fPIC", "-std=c++17", f"-I{headers}"]
    flags += ["-fopenmp"] if sys.platform == "linux" else []
    flags += ["-march=native"] if platform.machine() == "x86_64" else []
    try:
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "probe.cpp"
            source.write_text(PROBE)
            command = [*words, *flags, str(source), "-o", str(Path(folder) / "probe.so")]
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=PROBE_SECONDS,
                check=False,
            )
            made = (Path(folder) / "probe.so").is_file()
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, f"the C++ compiler {found} does not work ({error})"
    if done.returncode == 0 and made:
        return found, ""
    output = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip())
    reason = output.split("\n")[0][:200] or f"exit status {done.returncode}, without output"
    return None, f"the C++ compiler {found} does not work ({reason})"


def use_cache(folder: Path | None) -> None:
    """Store compiled code in `folder`, or in a local cache if it is None or not writable.

    TORCHINDUCTOR_CACHE_DIR in the environment takes precedence, as everywhere in PyTorch.
    """
    if "TORCHINDUCTOR_CACHE_DIR" in os.environ:
        return
    part = f"torch-{torch.__version__}-{platform.machine()}-{processor()}"
    for root in (folder, _user_cache(), _temporary_cache()):
        if root is not None and _has_room(root / part):
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(root / part)
            return


def _user_cache() -> Path | None:
    """The folder for compiled code in the user's cache."""
    if given := os.environ.get("RAYDC_CACHE"):
        return Path(given).expanduser() / "compiled"
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not cache.is_absolute():  # the specification requires to ignore relative paths
        try:
            cache = Path("~/.cache").expanduser()
        except RuntimeError:
            return None
    return cache / "raydc" / "compiled"


def _temporary_cache() -> Path | None:
    """A subfolder of the temporary folder that only this user can write to, since its code is executed."""
    folder = Path(tempfile.gettempdir()) / f"raydc-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return None
    mine = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022
    return folder / "compiled" if mine else None


def _has_room(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        return shutil.disk_usage(folder).free >= ROOM_BYTES
    except OSError:
        return False


@cache
def processor() -> str:
    """The type of this machine's processor as 8 hexadecimal digits; compiled code depends on it."""
    try:
        lines = CPUINFO.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    found = {line.strip() for line in lines if line.partition(":")[0].strip() in PROCESSOR_LINES}
    kind = "\n".join(sorted(found)) or platform.processor() or platform.machine()
    return f"{zlib.crc32(kind.encode()):08x}"


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Let one process of the machine compile at a time; the others then use the cached code."""
    folder = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    if folder is None:
        yield
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    with (Path(folder) / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
