"""raydc doctor: checks that this machine can run a study, and says how to fix what is wrong."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from raydc.errors import TrackingError, without_password

LEAST_FREE_GIB = 5.0
"""Smallest free space on the disk of a local store."""
LEAST_TORCH = (2, 10)
"""Oldest supported version of torch."""


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    check: str
    ok: bool
    found: str
    fix: str = ""
    """What to do if the check failed."""


def examine(tracking_uri: str | None, store: str) -> list[Finding]:
    """All checks, in order; none raises."""
    checks: dict[str, Callable[[], Finding]] = {
        "python": _python,
        "torch": _torch,
        "torchvision": _torchvision,
        "device": _device,
        "compiler": _compiler,
        "ray": lambda: _package("ray", "pip install 'ray[default,tune]'"),
        "ray starts": _ray_starts,
        "mlflow": lambda: _package("mlflow", "pip install mlflow"),
        "mlflow server": lambda: _tracking(tracking_uri),
        "disk": lambda: _disk(store),
    }
    found = []
    for name, check in checks.items():
        try:
            found.append(check())
        except Exception as error:  # a check that raises is a failed check, not a crash
            found.append(Finding(name, False, f"{type(error).__name__}: {error}", "see the error"))
    return found


def _python() -> Finding:
    return Finding(
        "python", sys.version_info >= (3, 11), platform.python_version(), "use Python 3.11 or newer"
    )


def _package(name: str, fix: str) -> Finding:
    try:
        return Finding(name, True, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, False, "not installed", fix)


def _torch() -> Finding:
    import torch

    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    return Finding("torch", version >= LEAST_TORCH, torch.__version__, "pip install -U torch torchvision")


def _torchvision() -> Finding:
    fix = "install torch and torchvision together: pip install -U torch torchvision"
    try:
        import torchvision
        from torchvision.ops import nms

        assert nms is not None
        return Finding("torchvision", True, torchvision.__version__)
    except (ImportError, RuntimeError) as error:
        return Finding("torchvision", False, str(error).split("\n")[0], fix)


def _device() -> Finding:
    import torch

    cores = len(os.sched_getaffinity(0))
    if torch.cuda.is_available():
        names = {torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())}
        return Finding("device", True, f"{torch.cuda.device_count()} GPU ({', '.join(names)}), {cores} cores")
    return Finding("device", True, f"no GPU, {cores} CPU cores")


def _compiler() -> Finding:
    from raydc.training.compiling import compiler, no_compiler

    # Students also train without a compiler, so a missing one is not a failure.
    return Finding("compiler", True, compiler() or no_compiler())


def _ray_starts() -> Finding:
    from raydc.orchestration.cluster import connected
    from raydc.spec.study_file import Resources

    with connected(None, Resources()) as capacity:
        return Finding("ray starts", True, f"{capacity.cpus} CPUs, {capacity.gpus:g} GPUs")


def _tracking(uri: str | None) -> Finding:
    from raydc.tracking.reach import probe

    if uri is None:
        return Finding("mlflow server", True, "none given: SQLite in the study's folder")
    try:
        probe(uri)
    except TrackingError as error:
        return Finding(
            "mlflow server", False, str(error), "start the server, or check the address and password"
        )
    return Finding("mlflow server", True, without_password(uri))


def _disk(store: str) -> Finding:
    if "://" in store:
        return Finding("store", True, f"{without_password(store)} (remote; not measured)")
    folder = Path(store).absolute()
    try:
        while not folder.exists():
            folder = folder.parent
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        fix = "make the folder writable, or set RAYDC_STORE to another one"
        return Finding("disk", False, f"{folder}: {error.strerror}", fix)
    free = shutil.disk_usage(folder).free / 2**30
    fix = "free some space, or set RAYDC_STORE to a folder on another disk"
    return Finding("disk", free >= LEAST_FREE_GIB, f"{free:.1f} GiB free at {folder}", fix)
