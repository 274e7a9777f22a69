"""Training one network: the loop of every teacher and of every student outside packs.

There is no DataLoader and no synchronisation inside the loop: parameters of views are drawn in chunks, and
losses stay on the device and are checked once per chunk.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import tee

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from raydc.augmentation.streams import CHUNK
from raydc.augmentation.views import Step, Views
from raydc.errors import EvaluationError
from raydc.networks.zoo import draws_at_random
from raydc.spec.evaluation import Recipe
from raydc.spec.seeding import seed_of
from raydc.training.group import ALONE, Group
from raydc.training.inputs import Inputs
from raydc.training.losses import full_precision, loss_function
from raydc.training.optimizer import autocast, make_optimizer, tensor_cores
from raydc.training.schedules import rate_factor
from raydc.training.targets import TargetSource

OnEpoch = Callable[[int, nn.Module, Optimizer], None]


@dataclass(frozen=True)
class Training:
    """Steps, time and losses of a training."""

    steps: int
    """Number of optimizer steps."""
    train_seconds: float
    """Time from the start of the second step to the end of the last, scaled to all steps; without
    compilation, tests and pauses."""
    losses: Tensor
    """[steps] on the CPU, the loss of each step."""


def fit(
    network: nn.Module,
    inputs: Inputs,
    targets: TargetSource,
    recipe: Recipe,
    *,
    key: int,
    device: torch.device,
    first_step: int = 0,
    last_step: int | None = None,
    optimizer: Optimizer | None = None,
    on_epoch: OnEpoch | None = None,
    forward: nn.Module | None = None,
    views: Views | None = None,
    group: Group = ALONE,
) -> Training:
    """Train `network` in place, from `first_step` (a multiple of an epoch) to the recipe's end.

    key: seed of the views (below 2**63). `last_step` stops earlier than the schedule's end.
    `on_epoch(epochs, network, optimizer)` is called after each complete epoch and is not timed.
    `views` replaces those of `recipe` and `key`; `forward` is called instead of `network` (its compiled
    form, or `group.joined`). `group`: the processes that train the network together, each of which calls
    this function. Raises `EvaluationError` with the first step whose loss is not finite.
    """
    last = recipe.total_steps(len(inputs)) if last_step is None else last_step
    views = Views(recipe, len(inputs), key, device) if views is None else views
    optimizer = make_optimizer(recipe, network) if optimizer is None else optimizer
    loss_of = loss_function(recipe)
    forward = network if forward is None else forward
    clock, losses, random = StepClock(device), list[Tensor](), draws_at_random(network)
    network.train()
    with tensor_cores(recipe.precision):
        steps, ahead = tee(_own_part(views.steps(first_step, last), views.batch_size, len(inputs), group))
        images = inputs.each(step.index for step, _ in ahead)
        for step_number, (step, weight) in enumerate(steps, first_step):
            clock.before_step()
            if random and step_number % views.per_epoch == 0:
                seed_layers(seed_of("layers", key, step_number // views.per_epoch, group.rank), device)
            _set_rate(optimizer, recipe.lr * rate_factor(recipe, step_number, len(inputs)))
            view = views.render_batch(next(images), step)
            optimizer.zero_grad()
            with autocast(recipe.precision, device):
                logits = forward(view.images)
            loss = loss_of(full_precision(logits), targets.at(view, step.epoch, step.batch))
            loss = loss if weight is None else loss * weight
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
            done = step_number + 1
            if len(losses) % CHUNK == 0 or done == last:
                _check_finite(losses[-CHUNK:], done)
            if on_epoch is not None and done % views.per_epoch == 0:
                with clock.pause():
                    on_epoch(done // views.per_epoch, network, optimizer)
                    network.train()
    return Training(
        steps=last - first_step,
        train_seconds=clock.seconds(last - first_step),
        losses=group.mean(torch.stack(losses)).cpu() if losses else torch.empty(0),
    )


def _own_part(
    steps: Iterator[Step], batch_size: int, images: int, group: Group
) -> Iterator[tuple[Step, float | None]]:
    """This process's part of each step and the weight of its loss; None for the whole batch.

    The mean of the weighted losses over the processes is the mean over the batch, also for uneven parts.
    """
    if group.size == 1:
        yield from ((step, None) for step in steps)
        return
    for step in steps:
        count = min(batch_size, images - step.batch * batch_size)
        rows = group.rows(count)
        yield step.part(rows, images), (rows.stop - rows.start) * group.size / count


def _set_rate(optimizer: Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def seed_layers(seed: int, device: torch.device) -> None:
    """Seed the generator of dropout and similar layers; called per epoch, where a training may resume."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


def _check_finite(losses: list[Tensor], done: int) -> None:
    finite = torch.stack(losses).isfinite()
    if not bool(finite.all()):
        first = done - len(losses) + int((~finite).nonzero()[0])
        raise EvaluationError(
            f"the loss is {losses[first - done + len(losses)].item()} at step {first}; lower train.lr"
        )


class StepClock:
    """Measures the time of steps from the start of the second one, without pauses."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._steps = 0
        self._start: float | None = None
        self._created = self._now()
        self._paused = 0.0

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    def before_step(self) -> None:
        self._steps += 1
        if self._steps == 2:
            self._start = self._now()
            self._paused = 0.0

    def pause(self) -> _Pause:
        return _Pause(self)

    def add_pause(self, seconds: float) -> None:
        self._paused += seconds

    def now(self) -> float:
        return self._now()

    def seconds(self, steps: int) -> float:
        """Seconds of `steps` steps, extrapolated from all but the first step if there are several."""
        if steps == 0:
            return 0.0
        if self._start is None:
            return self._now() - self._created - self._paused
        return (self._now() - self._start - self._paused) * steps / (steps - 1)


class _Pause:
    """Context manager whose duration is not counted."""

    def __init__(self, clock: StepClock) -> None:
        self._clock = clock

    def __enter__(self) -> None:
        self._start = self._clock.now()

    def __exit__(self, *_: object) -> None:
        self._clock.add_pause(self._clock.now() - self._start)
