"""Packs: many students of equal shapes in one GPU program.

Parameters are stacked [S, ...]; student s has its own images, views, targets, temperature, learning rate
and seed, and trains exactly as it would alone. A step is: views (rendered for many steps at once), one
forward and one backward of the stack, one optimizer update. There are several roads for the forward:

| road     | forward of S students                                                   | networks |
| -------- | ----------------------------------------------------------------------- | -------- |
| grouped  | convolutions with S groups on [B, S C, H, W], batched linear layer        | ConvNets |
| unfold   | patches [S, B H W, 9 C] times kernels [S, 9 C, W], channels last          | ConvNets |
| compiled | unfold, with what is between the products fused by torch.compile          | ConvNets |
| vmap     | torch.func.vmap of the network over its stacked parameters               | any without dropout |

On a GPU the step is captured in a CUDA graph, so that its launches cost nothing; the fastest road for a
shape is measured when it is first met (raydc.training.roads). On a CPU one single-threaded student a
core is faster (raydc.training.engine), so packs are for GPUs; their results do not depend on the device.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raydc.augmentation.pack_views import PackView, PackViews
from raydc.networks.convnet import ConvNet
from raydc.networks.zoo import draws_at_random
from raydc.spec.evaluation import Recipe
from raydc.training.engine import MOST_SHAPES, compiler
from raydc.training.fit import StepClock
from raydc.training.inputs import Inputs
from raydc.training.losses import full_precision
from raydc.training.optimizer import autocast, rate_factor, tensor_cores
from raydc.training.stacked import StackedOptimizer, StackedTargets, losses_of, stack_targets
from raydc.training.targets import StaticTargets, TargetSource, ViewTable

State = dict[str, Tensor]
Forward = Callable[[State, State, Tensor], Tensor]
"""(parameters, buffers, images [S, B, C, H, W]) -> logits [S, B, classes]; buffers change in place."""


@dataclass(frozen=True)
class Member:
    """One student of a pack."""

    state: State
    """Initial weights and buffers."""
    inputs: Inputs
    targets: TargetSource
    recipe: Recipe
    """Its own recipe; in a pack, all but the rates of the optimizer are equal."""
    key: int
    """Seed of its views."""
    grid: tuple[int, int] = (1, 1)
    """Rows and columns of tiles in its images."""
    images: str = ""
    """Name of its set; students of one set and one key meet the same views. Empty: `inputs` itself."""


@dataclass(frozen=True)
class PackTraining:
    """What a pack took and what became of its students."""

    states: list[State]
    """Weights and buffers of each student after the last step."""
    losses: Tensor
    """[S, steps] on the CPU."""
    train_seconds: float
    """Of the whole pack, as for a single training."""


def shape_of(recipe: Recipe) -> Recipe:
    """The recipe without what may differ inside a pack."""
    return replace(recipe, lr=0.0, weight_decay=0.0, view_seed=None)


def roads_for(network: nn.Module) -> tuple[str, ...]:
    """Roads that can run `network`; empty if it draws random numbers of its own."""
    if isinstance(network, ConvNet):
        return ("grouped", "unfold", *(["compiled"] if compiler() else []), "vmap")
    return () if draws_at_random(network) else ("vmap",)


def forward_of(road: str, network: nn.Module) -> Forward:
    """The forward of a stack of `network`s, in training mode, by a road of `roads_for`."""
    if road == "vmap":
        return _vmapped(network)
    assert isinstance(network, ConvNet), road
    if road == "grouped":
        return lambda parameters, buffers, images: _grouped(network, parameters, buffers, images)
    unfold: Forward = lambda parameters, buffers, images: _unfolded(network, parameters, buffers, images)  # noqa: E731
    if road == "unfold":
        return unfold
    assert road == "compiled", road
    torch._dynamo.config.recompile_limit = MOST_SHAPES
    compiled: Forward = torch.compile(unfold, dynamic=False)
    return compiled


def _vmapped(network: nn.Module) -> Forward:
    network.train()

    def one(parameters: State, buffers: State, images: Tensor) -> Tensor:
        said: Tensor = torch.func.functional_call(network, (parameters, buffers), (images,))
        return said

    many: Forward = torch.func.vmap(one)
    return many


def _blocks(network: ConvNet) -> Iterator[tuple[str, str, nn.Module]]:
    """(name of the convolution, name of its normalisation, the normalisation) of each block."""
    layers = list(network.features)
    for i in range(0, len(layers), 4):
        yield f"features.{i}", f"features.{i + 1}", layers[i + 1]


def _grouped(network: ConvNet, parameters: State, buffers: State, images: Tensor) -> Tensor:
    students, batch = images.shape[:2]
    hidden = images.transpose(0, 1).flatten(1, 2)
    for convolution, norm, layer in _blocks(network):
        weight, bias = parameters[f"{convolution}.weight"], parameters[f"{convolution}.bias"]
        hidden = F.conv2d(hidden, weight.flatten(0, 1), bias.flatten(), padding=1, groups=students)
        scale, shift = parameters[f"{norm}.weight"].flatten(), parameters[f"{norm}.bias"].flatten()
        if isinstance(layer, nn.BatchNorm2d):
            mean, variance = (buffers[f"{norm}.{name}"].view(-1) for name in ("running_mean", "running_var"))
            buffers[f"{norm}.num_batches_tracked"] += 1
            assert layer.momentum is not None
            hidden = F.batch_norm(
                hidden, mean, variance, scale, shift, training=True, momentum=layer.momentum
            )
        else:
            hidden = F.group_norm(hidden, hidden.shape[1], scale, shift)
        hidden = F.avg_pool2d(F.relu(hidden), 2)
    flat = hidden.view(batch, students, -1).transpose(0, 1)
    return _linear(parameters, flat)


def _unfolded(network: ConvNet, parameters: State, buffers: State, images: Tensor) -> Tensor:
    students, batch = images.shape[:2]
    hidden = images.permute(0, 1, 3, 4, 2)  # [S, B, H, W, C]
    for convolution, norm, layer in _blocks(network):
        weight, bias = parameters[f"{convolution}.weight"], parameters[f"{convolution}.bias"]
        height, width = hidden.shape[2:4]
        if torch.is_autocast_enabled(hidden.device.type):
            # Before the patches are made, which are nine times as large.
            hidden = hidden.to(torch.get_autocast_dtype(hidden.device.type))
        padded = F.pad(hidden, (0, 0, 1, 1, 1, 1))
        patches = padded.unfold(2, 3, 1).unfold(3, 3, 1)  # [S, B, H, W, C, 3, 3]
        product = torch.baddbmm(
            bias[:, None], patches.reshape(students, batch * height * width, -1), weight.flatten(2).mT
        )
        # Normalised in full precision, as a single network does under autocast.
        hidden = full_precision(product).view(students, batch, height * width, -1)
        over = (1, 2) if isinstance(layer, nn.BatchNorm2d) else (2,)
        variance, mean = torch.var_mean(hidden, over, correction=0, keepdim=True)
        if isinstance(layer, nn.BatchNorm2d):
            _track(layer, norm, buffers, mean, variance, batch * height * width)
        assert isinstance(layer, nn.BatchNorm2d | nn.GroupNorm)
        hidden = (hidden - mean) * torch.rsqrt(variance + layer.eps)
        scale, shift = parameters[f"{norm}.weight"], parameters[f"{norm}.bias"]
        hidden = torch.relu(hidden * scale[:, None, None] + shift[:, None, None])
        even = hidden.view(students, batch, height, width, -1)[:, :, : height // 2 * 2, : width // 2 * 2]
        hidden = even.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).mean((3, 5))
    flat = hidden.permute(0, 1, 4, 2, 3).flatten(2)
    return _linear(parameters, flat)


def _track(
    layer: nn.BatchNorm2d, norm: str, buffers: State, mean: Tensor, variance: Tensor, count: int
) -> None:
    """Update running statistics as BatchNorm does: the variance is stored without bias."""
    assert layer.momentum is not None
    with torch.no_grad():
        buffers[f"{norm}.running_mean"].lerp_(mean.detach().flatten(1), layer.momentum)
        unbiased = variance.detach().flatten(1) * (count / (count - 1))
        buffers[f"{norm}.running_var"].lerp_(unbiased, layer.momentum)
        buffers[f"{norm}.num_batches_tracked"] += 1


def _linear(parameters: State, features: Tensor) -> Tensor:
    """[S, B, D] -> logits [S, B, classes]."""
    return torch.baddbmm(parameters["classifier.bias"][:, None], features, parameters["classifier.weight"].mT)


class PackTargets:
    """Targets of all students, step by step: [S, B, C] each; `stream_of`: [S], each student's views."""

    def __init__(self, members: Sequence[Member], stream_of: Sequence[int], device: torch.device) -> None:
        self._sources = [member.targets.to(device) for member in members]
        self._loss = members[0].recipe.loss
        self._stream_of = list(stream_of)
        self._streams = torch.tensor(self._stream_of, device=device)
        self._stacked: StackedTargets | None = None
        static = [source.targets for source in self._sources if isinstance(source, StaticTargets)]
        if len(static) == len(members):
            self._stacked = stack_targets(static, self._loss)
        self._tables = self._view_tables()

    def _view_tables(self) -> list[tuple[ViewTable, Tensor]] | None:
        """Each student's source with the probabilities of all views, made once where they are equal."""
        made: dict[Hashable, Tensor] = {}
        found: list[tuple[ViewTable, Tensor]] = []
        for source in self._sources:
            if self._loss == "mse_ce" or not isinstance(source, ViewTable):
                return None
            name = source.table_name()
            if name not in made:
                softened = source.softened()
                if softened is None:
                    return None
                made[name] = softened
            found.append((source, made[name]))
        first = found[0][1]
        self._temperature = first.new_tensor([source.temperature for source, _ in found])
        return found

    def at(self, view: PackView) -> StackedTargets:
        """Targets of a step."""
        if self._tables is not None:
            rows = []
            for (source, table), stream in zip(self._tables, self._stream_of, strict=True):
                first, end = source.span(*view.places[stream])
                rows.append(table[first:end])
            return StackedTargets(torch.stack(rows), self._temperature)
        if self._stacked is None:
            seen = {stream: view.of(stream) for stream in set(self._stream_of)}
            each = [
                source.at(seen[stream], *view.places[stream])
                for source, stream in zip(self._sources, self._stream_of, strict=True)
            ]
            return stack_targets(each, self._loss)
        chosen = self._stacked
        if view.index is not None:
            chosen = chosen.take(view.index[self._streams])
        if view.partner is not None and view.share is not None:
            chosen = chosen.mixed(view.partner[self._streams], view.share[self._streams])
        return chosen


def streams(members: Sequence[Member]) -> tuple[list[Member], list[int]]:
    """(one member for each distinct stream of views, the stream of each member)."""
    names = [(member.images or id(member.inputs), member.key) for member in members]
    distinct = list(dict.fromkeys(names))
    return [members[names.index(name)] for name in distinct], [distinct.index(name) for name in names]


class Program:
    """Forward, backward and update of a stack; on a GPU a CUDA graph for each shape of batch."""

    def __init__(
        self, network: nn.Module, members: Sequence[Member], road: str, device: torch.device
    ) -> None:
        self._forward = forward_of(road, network)
        self._recipe = members[0].recipe
        self._device = device
        trainable = {name for name, p in network.named_parameters() if p.requires_grad}
        first = members[0].state

        def stack(names: Sequence[str]) -> State:
            return {n: torch.stack([m.state[n] for m in members]).to(device) for n in names}

        self.parameters = {
            n: p.requires_grad_() for n, p in stack([n for n in first if n in trainable]).items()
        }
        self.buffers = stack([n for n in first if n not in trainable])
        self._optimizer = StackedOptimizer([m.recipe for m in members], list(self.parameters.values()))
        self._graphs: dict[int, _Graph] = {}

    def step(self, images: Tensor, targets: StackedTargets, factor: float) -> Tensor:
        """One step at `factor` times the peak rates; losses [S], valid until the next step."""
        self._optimizer.set_factor(factor)
        if self._device.type != "cuda":
            return self._run(images, targets)
        return self._graphs[images.shape[1]].replay(images, targets)

    def is_ready(self, batch: int) -> bool:
        """Whether a step of `batch` images can run without being captured first."""
        return self._device.type != "cuda" or batch in self._graphs

    def capture(self, images: Tensor, targets: StackedTargets) -> None:
        """Capture a step of this shape; nothing that a step changes is changed."""
        self._graphs[images.shape[1]] = _Graph(self, images, targets)

    def _run(self, images: Tensor, targets: StackedTargets) -> Tensor:
        with autocast(self._recipe.precision, self._device):
            logits = self._forward(self.parameters, self.buffers, images)
        losses = losses_of(self._recipe.loss, logits, targets)
        # The sum keeps students apart: each loss depends on its own parameters only.
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

    def _changing(self) -> list[Tensor]:
        return [*self.parameters.values(), *self.buffers.values(), *self._optimizer.state()]

    def states(self) -> list[State]:
        """Weights and buffers by student."""
        together = {**self.parameters, **self.buffers}
        count = len(next(iter(self.parameters.values())))
        return [{n: t[s].detach().clone() for n, t in together.items()} for s in range(count)]


class _Graph:
    """A captured step. Its inputs are copied into fixed places, then one launch runs it all."""

    WARM_UP = 3

    def __init__(self, program: Program, images: Tensor, targets: StackedTargets) -> None:
        self._images = images.clone()
        self._targets = targets.clone()
        before = program.snapshot()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(self.WARM_UP):
                program._run(self._images, self._targets)
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._losses = program._run(self._images, self._targets)
        program.restore(before)

    def replay(self, images: Tensor, targets: StackedTargets) -> Tensor:
        self._images.copy_(images)
        self._targets.copy_(targets)
        self._graph.replay()
        return self._losses


def fit_pack(
    network: nn.Module,
    members: Sequence[Member],
    road: str,
    device: torch.device,
    *,
    pool: int | None = None,
    last_step: int | None = None,
    on_epoch: Callable[[int, list[State]], None] | None = None,
    every: int = 1,
) -> PackTraining:
    """Train all members together from their initial states to the recipe's end, or to `last_step`.

    `network` gives the architecture; its own weights are not used. `on_epoch(epochs, states)` is called
    after each `every` complete epochs and is not timed. A student whose loss is not finite stays in the pack,
    where it harms nobody; its losses show it.
    """
    recipe = members[0].recipe
    images = len(members[0].inputs)
    assert all(shape_of(m.recipe) == shape_of(recipe) and len(m.inputs) == images for m in members)
    last = recipe.total_steps(images) if last_step is None else last_step
    per_epoch = recipe.steps_per_epoch(images)
    program = Program(network, members, road, device)
    owners, stream_of = streams(members)
    targets = PackTargets(members, stream_of, device)
    views = PackViews(
        recipe,
        [owner.inputs.take(None) for owner in owners],
        [owner.key for owner in owners],
        device,
        pool,
        [owner.grid for owner in owners],
    )
    # Students that share views take copies of one rendering.
    copies = None if len(owners) == len(members) else torch.tensor(stream_of, device=device)
    losses = torch.empty(last, len(members), device=device, dtype=members[0].inputs.take(slice(0, 1)).dtype)
    clock = StepClock(device)
    with tensor_cores(recipe.precision):
        for number, view in enumerate(views.steps(0, last)):
            clock.before_step()
            batch = view.images if copies is None else view.images[copies]
            wanted = targets.at(view)
            if not program.is_ready(batch.shape[1]):
                with clock.pause():
                    program.capture(batch, wanted)
            losses[number] = program.step(batch, wanted, rate_factor(recipe, number, images))
            if on_epoch is not None and (number + 1) % (per_epoch * every) == 0:
                with clock.pause():
                    on_epoch((number + 1) // per_epoch, program.states())
    seconds = clock.seconds(last)
    return PackTraining(program.states(), losses.T.cpu(), seconds)
