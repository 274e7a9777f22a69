"""Labels learnt by back-propagation through a student's training, with fixed images.

Truncated back-propagation with a random window (RaT-BPTT, arXiv 2311.07025;
fengyzpku/Simple_Dataset_Distillation), as arXiv 2406.10485 applies it to labels only. Each outer step trains
a fresh network on (images, labels) for a random number of plain steps and then for `unroll_steps` steps that
are differentiated, and updates the labels by gradient descent on its cross-entropy on real images. Labels
stay at or above 0 and are not renormalised.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from raydc.augmentation.views import View, Views
from raydc.errors import EvaluationError
from raydc.networks.zoo import draws_at_random
from raydc.spec.evaluation import Recipe
from raydc.spec.seeding import seed_of
from raydc.training.fit import seed_layers
from raydc.training.inputs import Inputs
from raydc.training.optimizer import tensor_cores

BETAS, TINY = (0.9, 0.999), 1e-8
"""Betas and epsilon of the inner Adam."""
CLIP, CLIP_MEMORY = 2.0, 0.9
"""A gradient whose norm exceeds CLIP times the moving average of the norm is scaled down to that; CLIP_MEMORY
is the decay of the average."""

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class InnerProblem:
    """The inner problem: the data and the training for which labels are learnt."""

    images: Tensor
    """[N, C, H, W] float32, the compressed set as network inputs."""
    real: Inputs
    """M real images on which the student's loss is measured."""
    classes: Tensor
    """[M] int64, classes of the real images."""
    recipe: Recipe
    """The student's recipe; its augmentations and batch size determine the views of the inner training."""
    fresh: Callable[[int], nn.Module]
    """Returns a newly initialised network for an outer step, on the device."""
    name: str
    """Name from which all random seeds are derived."""
    grid: tuple[int, int] = (1, 1)
    """Rows and columns of tiles in an image."""


@dataclass(frozen=True)
class BpttSettings:
    """How labels are learnt: the keys of the label kind `learned`."""

    unroll_steps: int = 60
    """Steps of the inner training that are differentiated (M)."""
    inner_steps: int = 200
    """Largest number of steps of the inner training (T)."""
    inner_lr: float = 1e-3
    """Learning rate of the inner Adam."""
    outer_steps: int = 1000
    """Number of updates of the labels."""
    lr: float = 1e-3
    """Learning rate of the outer Adam, which updates the labels."""
    real_batch: int = 5000
    """Largest number of real images per outer step."""


@dataclass
class Progress:
    """State of the labels being learnt: everything that later steps depend on."""

    labels: Tensor
    """[N, C] float32, at least 0."""
    first_moment: Tensor
    second_moment: Tensor
    """[N, C], Adam's averages of the gradient and of its square."""
    length: Tensor
    """Scalar, moving average of the gradient norm; 0 before the first step."""
    losses: list[float] = field(default_factory=list)
    """Cross-entropy on real images, by outer step."""

    @staticmethod
    def begin(labels: Tensor) -> Progress:
        """The state before the first step; labels [N, C]."""
        zeros = torch.zeros_like(labels)
        return Progress(labels.clone(), zeros, zeros.clone(), torch.zeros((), device=labels.device))

    @property
    def step(self) -> int:
        """Outer steps done."""
        return len(self.losses)


def learn(problem: InnerProblem, settings: BpttSettings, progress: Progress) -> Iterator[Progress]:
    """Update the labels of `progress` in place until `outer_steps` are done; yields it after each step.

    A step is a function of (problem, settings, step, labels and averages before it), so a run that was
    interrupted ends with the same labels. Raises `EvaluationError` if a loss is not finite.
    """
    while progress.step < settings.outer_steps:
        labels = progress.labels.detach().requires_grad_(True)
        with tensor_cores(problem.recipe.precision):
            loss = _real_loss(problem, settings, progress.step, labels)
            (gradient,) = torch.autograd.grad(loss, labels)
        if not torch.isfinite(loss) or not torch.isfinite(gradient).all():
            raise EvaluationError(
                f"learning labels diverged at outer step {progress.step} (loss {loss.item():g}); lower "
                "labels.inner_lr or labels.lr, or shorten labels.unroll_steps"
            )
        _move(progress, gradient, settings.lr)
        progress.losses.append(loss.item())
        yield progress


def _real_loss(problem: InnerProblem, settings: BpttSettings, step: int, labels: Tensor) -> Tensor:
    """Cross-entropy on real images after an inner training, differentiable in the labels [N, C].

    The network stays in training mode: batch norm uses the statistics of the real batch.
    """
    rng = np.random.Generator(np.random.Philox(seed_of("label lesson", problem.name, step)))
    plain = int(rng.integers(0, settings.inner_steps - settings.unroll_steps + 1))
    chosen = rng.choice(len(problem.real), min(settings.real_batch, len(problem.real)), replace=False)
    network = problem.fresh(step).train()
    if draws_at_random(network):
        seed_layers(seed_of("label lesson layers", problem.name, step), labels.device)
    student = _Student(network, settings.inner_lr)
    key = seed_of("label lesson views", problem.name, step)
    views = _views(problem, key, plain + settings.unroll_steps)
    for view in islice(views, plain):
        student.step(view, labels.detach(), differentiable=False)
    for view in views:
        student.step(view, labels, differentiable=True)
    rows = torch.from_numpy(np.sort(chosen)).to(labels.device)
    return F.cross_entropy(student(problem.real.take(rows)), problem.classes[rows])


def _views(problem: InnerProblem, key: int, steps: int) -> Iterator[View]:
    views = Views(problem.recipe, len(problem.images), key, problem.images.device, grid=problem.grid)
    return (views.render(problem.images, step) for step in views.steps(0, steps))


class _Student:
    """A network trained by Adam whose weights are differentiable functions of its labels."""

    def __init__(self, network: nn.Module, lr: float) -> None:
        self._network = network
        self._lr = lr
        self._steps = 0
        self._buffers = dict(network.named_buffers())
        self._weights: Weights = {n: p.detach().requires_grad_(True) for n, p in network.named_parameters()}
        self._first: Weights = {n: torch.zeros_like(p) for n, p in self._weights.items()}
        self._second: Weights = {n: torch.zeros_like(p) for n, p in self._weights.items()}

    def __call__(self, images: Tensor) -> Tensor:
        logits: Tensor = functional_call(self._network, (self._weights, self._buffers), (images,))
        return logits

    def step(self, view: View, labels: Tensor, *, differentiable: bool) -> None:
        """One Adam step on the soft cross-entropy of a view; its graph is retained if `differentiable`."""
        loss = F.cross_entropy(self(view.images), view.mix(labels))
        names = list(self._weights)
        gradients = torch.autograd.grad(loss, [self._weights[n] for n in names], create_graph=differentiable)
        self._steps += 1
        with torch.set_grad_enabled(differentiable):
            for name, gradient in zip(names, gradients, strict=True):
                self._update(name, gradient)
        if not differentiable:
            self._weights = {n: w.requires_grad_(True) for n, w in self._weights.items()}

    def _update(self, name: str, gradient: Tensor) -> None:
        first = self._first[name] = BETAS[0] * self._first[name] + (1 - BETAS[0]) * gradient
        second = self._second[name] = BETAS[1] * self._second[name] + (1 - BETAS[1]) * gradient**2
        first = first / (1 - BETAS[0] ** self._steps)
        # TINY inside the square root too: its derivative at 0 is infinite.
        root = (second / (1 - BETAS[1] ** self._steps) + TINY**2).sqrt()
        self._weights[name] = self._weights[name] - self._lr * first / (root + TINY)


def _move(progress: Progress, gradient: Tensor, lr: float) -> None:
    """One Adam step on the labels, in place, with a bounded gradient norm."""
    length = gradient.norm()
    known = progress.length if progress.length > 0 else length
    gradient = gradient * (CLIP * known / length.clamp_min(TINY)).clamp_max(1.0)
    progress.length = CLIP_MEMORY * known + (1 - CLIP_MEMORY) * gradient.norm()
    done = progress.step + 1
    progress.first_moment = BETAS[0] * progress.first_moment + (1 - BETAS[0]) * gradient
    progress.second_moment = BETAS[1] * progress.second_moment + (1 - BETAS[1]) * gradient**2
    first = progress.first_moment / (1 - BETAS[0] ** done)
    root = (progress.second_moment / (1 - BETAS[1] ** done)).sqrt()
    progress.labels = (progress.labels - lr * first / (root + TINY)).clamp_min(0.0)
