"""The engine: how forward passes are executed.

On the CPU a student is one single-threaded program (stacking students was measured slower). Where there
is a C++ compiler that works and enough work, its network is compiled (torch.compile, 1.4 to 1.8 x on
ConvNets); what is compiled is kept in a cache that all workers of a machine share (raydc.training.compiling).
Whether to compile depends on the evaluation and the machine alone, so the same evaluation always runs the
same code there.

    engine(recipe) -> what would be best -> warm(...) -> what can be had, eager where compiling fails

A chassis is a network whose weights are exchanged: one object for all students of a shape, so that the
compiled code is found again.
"""

from __future__ import annotations

import logging
from functools import cache

import torch
from torch import Tensor, nn

from raydc.networks import zoo
from raydc.spec.evaluation import Recipe
from raydc.training.compiling import EAGERLY, compiler, no_compiler, one_at_a_time
from raydc.training.inputs import test_batch_size
from raydc.training.optimizer import autocast, tensor_cores

logger = logging.getLogger(__name__)

LEAST_FLOP = 3e11
"""Work of a training that is worth compiling for: some ten seconds of one CPU core."""
EAGER, COMPILED = "eager", "compiled"
MOST_SHAPES = 256
"""Shapes that torch.compile keeps for one network before it gives up."""
Shape = tuple[int, bool, str]
"""What code is compiled for: images of a batch, whether it is trained on, precision."""


@cache
def _say_once(text: str) -> None:
    """Warn of it once in the life of this process."""
    logger.warning(text)


class NetworkSlot:
    """A network for students (or epochs of a teacher) of one architecture and shape."""

    def __init__(self, arch: str, channels: int, classes: int, resolution: int, device: torch.device) -> None:
        self.arch = arch
        self.shape = (channels, resolution, resolution)
        self.device = device
        with torch.random.fork_rng(devices=[]):
            self.network = zoo.build(arch, channels, classes, resolution).to(device)
        self._compiled: nn.Module | None = None
        self._warm: set[Shape] = set()
        self._refused: set[Shape] = set()
        """Shapes that could not be compiled."""
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
        """How a training of `images` images by `recipe` is to be executed on this machine; see `warm`."""
        passes = recipe.total_steps(images) * min(images, recipe.batch_size)
        if self.device.type != "cpu" or 3 * self.flop_per_image * passes < LEAST_FLOP:
            return EAGER
        if compiler() is None:
            _say_once(no_compiler())
            return EAGER
        return COMPILED

    def forward(self, engine: str) -> nn.Module:
        """What to call for a forward pass; it shares its weights with `network`."""
        if engine == EAGER:
            return self.network
        if self._compiled is None:
            torch._dynamo.config.recompile_limit = MOST_SHAPES
            self._compiled = torch.compile(self.network, dynamic=False)  # type: ignore[assignment]
        assert self._compiled is not None
        return self._compiled

    def warm(self, engine: str, recipe: Recipe, images: int) -> str:
        """Compile everything that a training of `images` images and its tests will run.

        Returns the engine that can run it: `engine`, or `eager` where something cannot be compiled. Changes
        weights and buffers; load a student's afterwards.
        """
        size = min(images, recipe.batch_size)
        sizes = {size, images % size or size} if recipe.total_steps(images) else set()
        trained = {(n, True, recipe.precision) for n in sizes}
        return self._run_each(engine, {*trained, self._tested(recipe.precision)})

    def warm_test(self, engine: str, precision: str) -> str:
        """Compile what tests will run; returns the engine as `warm` does."""
        return self._run_each(engine, {self._tested(precision)})

    def _tested(self, precision: str) -> Shape:
        return test_batch_size(self.device), False, precision

    def _run_each(self, engine: str, wanted: set[Shape]) -> str:
        if engine == EAGER:
            return EAGER
        # Each shape by itself, so that it does not matter which evaluations this process has met before.
        for shape in sorted(wanted - self._warm):
            if shape in self._refused or not self._compile(engine, shape):
                self._refused.add(shape)
                return EAGER
            self._warm.add(shape)
        return engine

    def _compile(self, engine: str, shape: Shape) -> bool:
        """Whether `shape` could be compiled; raises the network's own errors."""
        try:
            with one_at_a_time():
                self._run_once(self.forward(engine), *shape)
        except Exception as error:  # of the compiler, its headers, the disk, or torch.compile itself
            self.network.zero_grad(set_to_none=True)
            # What the network itself cannot do fails here once more.
            self._run_once(self.network, *shape)
            reason = str(error).split("\n")[0][:200]
            _say_once(f"torch.compile failed ({type(error).__name__}: {reason}): {EAGERLY}")
            return False
        return True

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
