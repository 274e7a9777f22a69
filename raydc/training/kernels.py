"""Which road is the fastest for a shape of pack on this device, and how many students fit into it."""

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
"""A road that must be compiled is tried where the packs of a shape take longer than twice this without."""
MOST_STUDENTS = 256
STORED_PASSES = 4
"""Memory of a step in activations of one forward: kept ones, patches, gradients, and one to spare."""
STORED_WEIGHTS = 6
"""Copies of the weights: themselves, gradients, moments, a snapshot."""
FREE_PART = 0.8
"""Part of the free memory that a pack may take."""


def fastest_kernel(
    network: nn.Module, members: Sequence[Member], device: torch.device, pool: int | None, to_come: int = 0
) -> str:
    """The road that trains `members` fastest on `device`, by a trial of some steps each.

    to_come: students of this shape that are to be trained, `members` among them.
    """
    total = members[0].recipe.total_steps(len(members[0].inputs))
    kernels = kernels_for(network)
    if total == 0 or len(kernels) == 1:
        return kernels[0]
    packs = max(1, to_come / len(members))
    seconds: dict[str, float] = {}
    problem: Exception | None = None
    for kernel in kernels:
        # Where nothing fits into memory, compiled code would not either.
        fastest = min(
            seconds.values(), default=0.0 if problem is not None and out_of_memory(problem) else inf
        )
        if is_compiled(kernel) and not worth_compiling(fastest, total * packs):
            continue
        try:
            seconds[kernel] = _step_seconds(network, members, kernel, device, pool, min(TRIAL_STEPS, total))
        except Exception as error:  # another road may do; with none, the error is the caller's
            # Out of memory says less than an error that also smaller packs will meet.
            if problem is None or out_of_memory(problem):
                problem = error.with_traceback(None)
            logger.warning("%d students by %s: %s", len(members), kernel, str(error).split("\n")[0][:200])
            continue
        logger.info("%d students by %s: %.3g ms a step", len(members), kernel, 1e3 * seconds[kernel])
    if not seconds:
        assert problem is not None
        raise problem
    return min(seconds, key=lambda kernel: seconds[kernel])


def worth_compiling(seconds_a_step: float, steps: float) -> bool:
    """Whether there is enough to train for a road that must be compiled."""
    return seconds_a_step * steps >= 2 * COMPILE_SECONDS


def _step_seconds(
    network: nn.Module,
    members: Sequence[Member],
    kernel: str,
    device: torch.device,
    pool: int | None,
    steps: int,
) -> float:
    """Seconds a step of the first `steps`."""
    done = fit_pack(network, members, kernel, device, pool=pool, last_step=steps)
    return done.train_seconds / max(1, steps)


def students_that_fit(
    network: nn.Module, batch: int, shape: tuple[int, ...], free_bytes: float, label_values: int = 0
) -> int:
    """Students of `network` with batches of `batch` images [C, H, W] that fit into memory.

    label_values: numbers in the labels of a student.
    """
    weights = sum(p.numel() for p in network.parameters())
    values = STORED_WEIGHTS * weights + STORED_PASSES * batch * _activations(network, shape) + label_values
    return int(max(1, min(MOST_STUDENTS, FREE_PART * free_bytes // (4 * values))))


def _activations(network: nn.Module, shape: tuple[int, ...]) -> int:
    """Values that the layers of one forward put out for one image."""
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
