"""Choice of the fastest kernel for a shape of pack on a device, and of the number of students in a pack."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from math import inf

import torch
from torch import nn

from raydc.training.forwards import is_compiled, kernels_for
from raydc.training.memory import out_of_memory
from raydc.training.packed import Member, fit_pack

logger = logging.getLogger(__name__)

TRIAL_STEPS = 30
COMPILE_SECONDS = 60.0
"""A compiled kernel is tried if the packs of a shape take longer than twice this without it."""
MOST_STUDENTS = 256
STORED_PASSES = 4
"""Memory of a step, in activations of one forward pass: stored ones, patches, gradients and a reserve."""
STORED_WEIGHTS = 6
"""Memory of a student, in copies of its weights: weights, gradients, moments and a snapshot."""
FREE_PART = 0.8
"""Fraction of the free memory that a pack may use."""


def fastest_kernel(
    network: nn.Module, members: Sequence[Member], device: torch.device, pool: int | None, to_come: int = 0
) -> str:
    """The kernel that trains `members` fastest on `device`, measured over some steps of each kernel.

    to_come: number of students of this shape that remain to be trained, including `members`.
    """
    total = members[0].recipe.total_steps(len(members[0].inputs))
    kernels = kernels_for(network)
    if total == 0 or len(kernels) == 1:
        return kernels[0]
    packs = max(1, to_come / len(members))
    seconds: dict[str, float] = {}
    problem: Exception | None = None
    for kernel in kernels:
        # If no kernel fits into memory, compiled kernels will not fit either.
        fastest = min(
            seconds.values(), default=0.0 if problem is not None and out_of_memory(problem) else inf
        )
        if is_compiled(kernel) and not worth_compiling(fastest, total * packs):
            continue
        try:
            seconds[kernel] = _step_seconds(network, members, kernel, device, pool, min(TRIAL_STEPS, total))
        except Exception as error:  # another kernel may work; if none does, the error is raised below
            # Out of memory is less informative than an error that also occurs in smaller packs.
            if problem is None or out_of_memory(problem):
                problem = error.with_traceback(None)
            logger.warning("%d students by %s: %s", len(members), kernel, str(error).split("\n")[0][:200])
            continue
        logger.info("%d students by %s: %.3g ms a step", len(members), kernel, 1e3 * seconds[kernel])
    if not seconds:
        assert problem is not None
        raise problem
    return min(seconds, key=lambda kernel: seconds[kernel])


def worth_compiling(seconds_per_step: float, steps: float) -> bool:
    """Whether the training is long enough for a kernel that must be compiled."""
    return seconds_per_step * steps >= 2 * COMPILE_SECONDS


def _step_seconds(
    network: nn.Module,
    members: Sequence[Member],
    kernel: str,
    device: torch.device,
    pool: int | None,
    steps: int,
) -> float:
    """Mean seconds per step of the first `steps` steps."""
    done = fit_pack(network, members, kernel, device, pool=pool, last_step=steps)
    return done.train_seconds / max(1, steps)


def students_that_fit(
    network: nn.Module, batch: int, shape: tuple[int, ...], free_bytes: float, label_values: int = 0
) -> int:
    """Number of students of `network` with batches of `batch` images [C, H, W] that fit into memory.

    label_values: number of values in the labels of a student.
    """
    weights = sum(p.numel() for p in network.parameters())
    values = STORED_WEIGHTS * weights + STORED_PASSES * batch * _activations(network, shape) + label_values
    return int(max(1, min(MOST_STUDENTS, FREE_PART * free_bytes // (4 * values))))


def _activations(network: nn.Module, shape: tuple[int, ...]) -> int:
    """Number of values that the layers output for one image in a forward pass."""
    counted = 0

    def count(module: nn.Module, inputs: object, output: object) -> None:
        nonlocal counted
        if isinstance(output, torch.Tensor) and not list(module.children()):
            counted += output.numel()

    hooks = [module.register_forward_hook(count) for module in network.modules()]
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            network(torch.zeros(1, *shape, device=next(network.parameters()).device))
    finally:
        network.train(was_training)
        for hook in hooks:
            hook.remove()
    return counted
