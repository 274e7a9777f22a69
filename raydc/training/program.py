"""The program of a pack: forward, backward and update of stacked students, as a CUDA graph on a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor, nn

from raydc.spec.evaluation import Recipe
from raydc.training.forwards import State, forward_of
from raydc.training.losses import StackedTargets, full_precision, stacked_loss_function
from raydc.training.optimizer import autocast
from raydc.training.stacked import stacked_optimizer


class Program:
    """Forward, backward and update of a stack; on a GPU, one CUDA graph per batch size."""

    def __init__(
        self,
        network: nn.Module,
        states: Sequence[State],
        recipes: Sequence[Recipe],
        kernel: str,
        device: torch.device,
    ) -> None:
        """`network` gives the architecture; `states` and `recipes` are those of S students."""
        self._forward = forward_of(kernel, network)
        self._recipe = recipes[0]
        self._device = device
        trainable = {name for name, p in network.named_parameters() if p.requires_grad}

        def stack(names: Sequence[str]) -> State:
            return {n: torch.stack([state[n] for state in states]).to(device) for n in names}

        self.parameters = {
            n: p.requires_grad_() for n, p in stack([n for n in states[0] if n in trainable]).items()
        }
        self.buffers = stack([n for n in states[0] if n not in trainable])
        self._optimizer = stacked_optimizer(recipes, list(self.parameters.values()))
        self._losses = stacked_loss_function(recipes[0])
        self._graphs: dict[int, _Graph] = {}
        # Steps run one after the other, so graphs of different batch sizes can share memory.
        self._memory = torch.cuda.graph_pool_handle() if device.type == "cuda" else None

    def step(self, images: Tensor, targets: StackedTargets, factor: float) -> Tensor:
        """One step at `factor` times the peak rates; losses [S], valid until the next step."""
        self._optimizer.set_factor(factor)
        if self._device.type != "cuda":
            return self._run(images, targets)
        return self._graphs[images.shape[1]].replay(images, targets)

    def is_ready(self, batch: int) -> bool:
        """Whether a step with `batch` images can run without a capture."""
        return self._device.type != "cuda" or batch in self._graphs

    def capture(self, images: Tensor, targets: StackedTargets) -> None:
        """Capture a step of this shape; parameters, buffers and optimizer state do not change."""
        self._graphs[images.shape[1]] = _Graph(self, images, targets)

    def forget(self) -> None:
        """Release the captured graphs and their memory."""
        self._graphs.clear()

    def _run(self, images: Tensor, targets: StackedTargets) -> Tensor:
        with autocast(self._recipe.precision, self._device):
            logits = self._forward(self.parameters, self.buffers, images)
        losses = self._losses(full_precision(logits), targets)
        # Gradients of the sum are those of each student, since a loss depends on one student's parameters.
        gradients = torch.autograd.grad(losses.sum(), list(self.parameters.values()))
        self._optimizer.step(gradients)
        return losses.detach()

    def snapshot(self) -> list[Tensor]:
        """Copies of everything that a step changes."""
        return [t.detach().clone() for t in self._changing()]

    def restore(self, kept: Sequence[Tensor]) -> None:
        with torch.no_grad():
            for tensor, before in zip(self._changing(), kept, strict=True):
                tensor.copy_(before)

    def take_over(self, other: Program, students: Sequence[int]) -> None:
        """Copy the state of the `students` of another program, in this order."""
        chosen = torch.tensor(students, device=self._device)
        # The scalar, the optimizer's number of steps, is the same for all students.
        self.restore([t if t.ndim == 0 else t.detach()[chosen] for t in other._changing()])

    def _changing(self) -> list[Tensor]:
        return [*self.parameters.values(), *self.buffers.values(), *self._optimizer.state()]

    def states(self) -> list[State]:
        """Weights and buffers by student."""
        together = {**self.parameters, **self.buffers}
        count = len(next(iter(self.parameters.values())))
        return [{n: t[s].detach().clone() for n, t in together.items()} for s in range(count)]


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """One stream for all captures, since each stream has its own workspaces."""
    return torch.cuda.Stream(device)


class _Graph:
    """A captured step: inputs are copied into fixed buffers, then one launch runs all kernels."""

    WARM_UP = 3

    def __init__(self, program: Program, images: Tensor, targets: StackedTargets) -> None:
        self._images = images.clone()
        self._targets = targets.clone()
        before = program.snapshot()
        side = _side_stream(images.device)
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(self.WARM_UP):
                program._run(self._images, self._targets)
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=program._memory, stream=side):
            self._losses = program._run(self._images, self._targets)
        program.restore(before)

    def replay(self, images: Tensor, targets: StackedTargets) -> Tensor:
        self._images.copy_(images)
        self._targets.copy_(targets)
        self._graph.replay()
        return self._losses
