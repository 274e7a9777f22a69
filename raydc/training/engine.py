"""The engine: how forward passes are executed.

On the CPU a student is one single-threaded program (stacking students was measured slower). Where there
is a C++ compiler and enough work, its network is compiled (torch.compile, 1.4 to 1.8 x on ConvNets);
what is compiled is kept in a cache that all workers of a machine share, so a shape is compiled once.
Whether to compile depends on the evaluation alone, so the same evaluation always runs the same code.

A chassis is a network whose weights are exchanged: one object for all students of a shape, so that the
compiled code is found again.
"""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from raydc.networks import zoo
from raydc.spec.evaluation import Recipe
from raydc.training.inputs import test_batch_size
from raydc.training.optimizer import autocast, tensor_cores

LEAST_FLOP = 3e11
"""Work of a training that is worth compiling for: some ten seconds of one CPU core."""
EAGER, COMPILED = "eager", "compiled"
NO_COMPILER = "no C++ compiler with Python's headers: students run eagerly, slower where there is much work"
MOST_SHAPES = 256
"""Shapes that torch.compile keeps for one network before it gives up."""


def compiler() -> str | None:
    """The C++ compiler that torch.compile would use; None without one, or without Python's headers.

    TORCHDYNAMO_DISABLE=1 in the environment switches compiling off, as everywhere in PyTorch.
    """
    if os.environ.get("TORCHDYNAMO_DISABLE") == "1":
        return None
    return _compiler(os.environ.get("CXX", ""))


@cache
def _compiler(chosen: str) -> str | None:
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        return None
    return shutil.which(chosen) or shutil.which("g++") or shutil.which("clang++")


def use_cache(folder: Path) -> None:
    """Keep compiled code in `folder`, by torch version and processor."""
    place = folder / f"torch-{torch.__version__}-{platform.machine()}"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(place))


class Chassis:
    """A network for students (or epochs of a teacher) of one architecture and shape."""

    def __init__(self, arch: str, channels: int, classes: int, resolution: int, device: torch.device) -> None:
        self.arch = arch
        self.shape = (channels, resolution, resolution)
        self.device = device
        with torch.random.fork_rng(devices=[]):
            self.network = zoo.build(arch, channels, classes, resolution).to(device)
        self._compiled: nn.Module | None = None
        self._warm: set[tuple[int, bool, str]] = set()
        self.flop_per_image = self._count_flop()

    def _count_flop(self) -> int:
        """Floating-point operations of one forward pass over one image."""
        # It brings Triton, 70 MB that a driver has no use for.
        from torch.utils.flop_counter import FlopCounterMode

        was_training = self.network.training
        self.network.eval()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            self.network(torch.zeros(1, *self.shape, device=self.device))
        self.network.train(was_training)
        return int(counter.get_total_flops())

    def engine(self, recipe: Recipe, images: int) -> str:
        """How a training of `images` images by `recipe` is executed on this machine."""
        if self.device.type != "cpu" or compiler() is None:
            return EAGER
        passes = recipe.total_steps(images) * min(images, recipe.batch_size)
        return COMPILED if 3 * self.flop_per_image * passes >= LEAST_FLOP else EAGER

    def forward(self, engine: str) -> nn.Module:
        """What to call for a forward pass; it shares its weights with `network`."""
        if engine == EAGER:
            return self.network
        if self._compiled is None:
            torch._dynamo.config.recompile_limit = MOST_SHAPES
            self._compiled = torch.compile(self.network, dynamic=False)  # type: ignore[assignment]
        assert self._compiled is not None
        return self._compiled

    def warm(self, engine: str, recipe: Recipe, images: int) -> None:
        """Compile everything that a training of `images` images and its tests will run.

        Changes weights and buffers; load a student's afterwards.
        """
        if engine == EAGER:
            return
        size = min(images, recipe.batch_size)
        sizes = {size, images % size or size} if recipe.total_steps(images) else set()
        self._run_each(engine, {(n, True, recipe.precision) for n in sizes})
        self.warm_test(engine, recipe.precision)

    def warm_test(self, engine: str, precision: str) -> None:
        """Compile what tests will run."""
        if engine != EAGER:
            self._run_each(engine, {(test_batch_size(self.device), False, precision)})

    def _run_each(self, engine: str, wanted: set[tuple[int, bool, str]]) -> None:
        missing = wanted - self._warm
        if not missing:
            return
        with _one_at_a_time():
            for count, training, precision in sorted(missing):
                self._run_once(self.forward(engine), count, training, precision)
        self._warm |= missing

    def _run_once(self, forward: nn.Module, count: int, training: bool, precision: str) -> None:
        batch = torch.zeros(count, *self.shape, device=self.device)
        self.network.train(training)
        # Code is compiled for what is set around it.
        with tensor_cores(precision):
            if training:
                with autocast(precision, self.device):
                    loss: Tensor = forward(batch).float().sum()
                loss.backward()
                self.network.zero_grad(set_to_none=True)
            else:
                with torch.inference_mode(), autocast(precision, self.device):
                    forward(batch)

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over the weights and buffers of a network."""
        self.network.load_state_dict(state)
        self.network.train()


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Let one process of the machine compile; the others find its work in the cache."""
    cache = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    if cache is None:
        yield
        return
    Path(cache).mkdir(parents=True, exist_ok=True)
    with (Path(cache) / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
