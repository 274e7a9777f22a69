"""The engine: how forward passes are executed.

On the CPU a student is one single-threaded program (stacking students was measured to be slower). If a C++
compiler works and the training is long enough, the network is compiled (torch.compile, 1.4 to 1.8 x on
ConvNets). All workers of a machine share a cache of compiled code (raydc.training.compiling). Whether to
compile depends only on the evaluation and the machine, so an evaluation always runs the same code on a
machine.

    engine(recipe) -> preferred engine -> warm(...) -> available engine, eager if compilation fails

A network slot holds one network whose weights are replaced for each student, so that compiled code is reused.
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
"""Smallest work of a training for which compilation pays off: about ten seconds of one CPU core."""
EAGER, COMPILED = "eager", "compiled"
MOST_SHAPES = 256
"""Largest number of shapes that torch.compile compiles for one network."""
Shape = tuple[int, bool, str]
"""The key of compiled code: (images per batch, whether it is a training pass, precision)."""


@cache
def _say_once(text: str) -> None:
    """Log a warning once per process."""
    logger.warning(text)


class NetworkSlot:
    """A network that students (or epochs of a teacher) of one architecture and shape use in turn."""

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
        """Floating-point operations of one forward pass for one image."""
        # Imported here because it loads Triton, 70 MB that a driver does not need.
        from torch.utils.flop_counter import FlopCounterMode

        was_training = self.network.training
        self.network.eval()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            self.network(torch.zeros(1, *self.shape, device=self.device))
        self.network.train(was_training)
        return int(counter.get_total_flops())

    def engine(self, recipe: Recipe, images: int) -> str:
        """The preferred engine for a training on `images` images by `recipe` on this machine; see `warm`."""
        passes = recipe.total_steps(images) * min(images, recipe.batch_size)
        if self.device.type != "cpu" or 3 * self.flop_per_image * passes < LEAST_FLOP:
            return EAGER
        if compiler() is None:
            _say_once(no_compiler())
            return EAGER
        return COMPILED

    def forward(self, engine: str) -> nn.Module:
        """The module to call for a forward pass; it shares its weights with `network`."""
        if engine == EAGER:
            return self.network
        if self._compiled is None:
            torch._dynamo.config.recompile_limit = MOST_SHAPES
            self._compiled = torch.compile(self.network, dynamic=False)  # type: ignore[assignment]
        assert self._compiled is not None
        return self._compiled

    def warm(self, engine: str, recipe: Recipe, images: int) -> str:
        """Compile everything that a training on `images` images and its tests will run.

        Returns the engine to use: `engine`, or `eager` if something cannot be compiled. Changes weights and
        buffers; call `load` afterwards.
        """
        size = min(images, recipe.batch_size)
        sizes = {size, images % size or size} if recipe.total_steps(images) else set()
        trained = {(n, True, recipe.precision) for n in sizes}
        return self._run_each(engine, {*trained, self._tested(recipe.precision)})

    def warm_test(self, engine: str, precision: str) -> str:
        """Compile what tests will run; returns the engine to use, like `warm`."""
        return self._run_each(engine, {self._tested(precision)})

    def _tested(self, precision: str) -> Shape:
        return test_batch_size(self.device), False, precision

    def _run_each(self, engine: str, wanted: set[Shape]) -> str:
        if engine == EAGER:
            return EAGER
        # Each shape separately, so that the result does not depend on earlier evaluations in this process.
        for shape in sorted(wanted - self._warm):
            if shape in self._refused or not self._compile(engine, shape):
                self._refused.add(shape)
                return EAGER
            self._warm.add(shape)
        return engine

    def _compile(self, engine: str, shape: Shape) -> bool:
        """Compile `shape`; returns whether this was possible. Raises errors of the network itself."""
        try:
            with one_at_a_time():
                self._run_once(self.forward(engine), *shape)
        except Exception as error:  # from the compiler, its headers, the disk, or torch.compile itself
            self.network.zero_grad(set_to_none=True)
            # Errors of the network itself are raised again here.
            self._run_once(self.network, *shape)
            reason = str(error).split("\n")[0][:200]
            _say_once(f"torch.compile failed ({type(error).__name__}: {reason}): {EAGERLY}")
            return False
        return True

    def _run_once(self, forward: nn.Module, count: int, training: bool, precision: str) -> None:
        batch = torch.zeros(count, *self.shape, device=self.device)
        self.network.train(training)
        # Compiled code depends on these settings.
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
        """Load the weights and buffers of a network."""
        self.network.load_state_dict(state)
        self.network.train()
