"""Packs: students of equal shapes in one GPU program.

Parameters are stacked [S, ...]; student s has its own images, views, targets, temperature, learning rate
and seed, and is trained exactly as without a pack. A step consists of the views (rendered for many steps at
once), one forward and one backward pass of the stack by a kernel of `raydc.training.forwards`, and one
optimizer update.

On a GPU the step is captured in a CUDA graph, which removes the overhead of kernel launches. On a CPU one
single-threaded student per core is faster (raydc.training.engine), so packs are for GPUs; their results do
not depend on the device.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from raydc.augmentation.pack_views import PackView, PackViews
from raydc.spec import catalog
from raydc.spec.evaluation import Recipe
from raydc.training.fit import StepClock
from raydc.training.forwards import State, is_compiled
from raydc.training.inputs import Inputs
from raydc.training.losses import StackedTargets, stack_targets
from raydc.training.optimizer import tensor_cores
from raydc.training.program import Program
from raydc.training.schedules import rate_factor
from raydc.training.targets import StaticTargets, TargetSource, ViewTable


@dataclass(frozen=True)
class Member:
    """One student of a pack."""

    state: State
    """Initial weights and buffers."""
    inputs: Inputs
    targets: TargetSource
    recipe: Recipe
    """Recipe of the student; in a pack, recipes differ only in the rates of the optimizer."""
    key: int
    """Seed of the student's views."""
    grid: tuple[int, int] = (1, 1)
    """Rows and columns of tiles in the images."""
    images: str = ""
    """Id of the set; students with equal sets and keys share views. Empty: identified by `inputs`."""


@dataclass(frozen=True)
class PackTraining:
    """Final states, losses and time of a pack."""

    states: list[State]
    """Weights and buffers of each student after its last step."""
    losses: list[Tensor]
    """Losses of each student [steps of the student], on the CPU."""
    train_seconds: float
    """Time of the whole pack, see `raydc.training.fit.Training`."""


@dataclass(frozen=True)
class Looks:
    """Inspections of the students of a pack during training; their time is not measured."""

    due: Callable[[int], bool]
    """Whether students are inspected after the given number of complete epochs."""
    look: Callable[[int, Mapping[int, State]], Set[int]]
    """(complete epochs, states of the active students by number) -> numbers of the students to stop.
    Students with losses that are not finite are stopped anyway."""


def shape_of(recipe: Recipe) -> Recipe:
    """The recipe without the values that may differ inside a pack."""
    return replace(recipe, lr=0.0, weight_decay=0.0, view_seed=None)


class PackTargets:
    """Targets [S, B, C] of all students for each step; stream_of: [S], number of each student's stream."""

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
        """Each student's source and the probabilities of all views, shared by equal sources."""
        made: dict[Hashable, Tensor] = {}
        found: list[tuple[ViewTable, Tensor]] = []
        for source in self._sources:
            if catalog.LOSSES[self._loss].reads or not isinstance(source, ViewTable):
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


class _Stack:
    """The program, views and targets of members that are trained together."""

    def __init__(
        self,
        network: nn.Module,
        members: Sequence[Member],
        kernel: str,
        device: torch.device,
        pool: int | None,
    ) -> None:
        self._network, self._members, self._kernel = network, members, kernel
        self._device, self._pool = device, pool
        recipes = [member.recipe for member in members]
        self.program = Program(network, [member.state for member in members], recipes, kernel, device)
        owners, stream_of = streams(members)
        self._targets = PackTargets(members, stream_of, device)
        self._views = PackViews(
            recipes[0],
            [owner.inputs.take(None) for owner in owners],
            [owner.key for owner in owners],
            device,
            pool,
            [owner.grid for owner in owners],
        )
        # Students that share views use copies of one rendering.
        self._copies = None if len(owners) == len(members) else torch.tensor(stream_of, device=device)

    def steps(self, start: int, stop: int) -> Iterator[tuple[Tensor, StackedTargets]]:
        """Images [S, B, C, H, W] and targets of the steps start..stop-1."""
        for view in self._views.steps(start, stop):
            images = view.images if self._copies is None else view.images[self._copies]
            yield images, self._targets.at(view)

    def only(self, members: Sequence[int]) -> _Stack:
        """A stack of some of these members, with their current state."""
        chosen = [self._members[number] for number in members]
        self.program.forget()
        # Compiling for another size would take longer than it saves.
        kernel = "grouped" if is_compiled(self._kernel) else self._kernel
        fewer = _Stack(self._network, chosen, kernel, self._device, self._pool)
        fewer.program.take_over(self.program, members)
        return fewer


class _Pack:
    """A pack during training; stopped students are removed from the stack when they are half of it."""

    def __init__(self, stack: _Stack, members: int, steps: int) -> None:
        self.stack = stack
        self.active = list(range(members))
        """Numbers of the students whose training continues."""
        self._stacked = list(self.active)
        """Numbers of the students in the stack, which may include stopped ones."""
        self._steps = [steps] * members
        self._final: dict[int, State] = {}

    def look(self, looks: Looks, epochs: int, losses: Tensor) -> bool:
        """Inspect all active students; returns whether the stack was replaced or no student is active.

        losses: [steps, members] so far.
        """
        states = self._states()
        finite = losses.isfinite().all(0).tolist()
        inspected = {number: states[number] for number in self.active if finite[number]}
        stopped = looks.look(epochs, inspected) | {n for n in self.active if n not in inspected}
        for number in stopped:
            self.active.remove(number)
            self._steps[number] = len(losses)
            self._final[number] = states[number]
        if not self.active or 2 * len(self.active) > len(self._stacked):
            return not self.active
        self.stack = self.stack.only([self._stacked.index(number) for number in self.active])
        self._stacked = list(self.active)
        return True

    def places(self, device: torch.device) -> Tensor:
        """Numbers of the students in the stack [S]."""
        return torch.tensor(self._stacked, device=device)

    def _states(self) -> dict[int, State]:
        return dict(zip(self._stacked, self.stack.program.states(), strict=True))

    def done(self, losses: Tensor, seconds: float) -> PackTraining:
        """The result of the pack; losses: [steps, members]."""
        final = self._states() | self._final
        rows = losses.T.cpu()
        return PackTraining(
            states=[final[number] for number in range(len(self._steps))],
            losses=[row[:count] for row, count in zip(rows, self._steps, strict=True)],
            train_seconds=seconds,
        )


def fit_pack(
    network: nn.Module,
    members: Sequence[Member],
    kernel: str,
    device: torch.device,
    *,
    pool: int | None = None,
    last_step: int | None = None,
    looks: Looks | None = None,
) -> PackTraining:
    """Train all members together from their initial states to the recipe's end, or to `last_step`.

    `network` gives the architecture; its weights are not used. `looks` may stop students early. A student
    whose loss is not finite stays in the pack until the next inspection and does not affect other students;
    its losses show it.
    """
    recipe = members[0].recipe
    images = len(members[0].inputs)
    assert all(shape_of(m.recipe) == shape_of(recipe) and len(m.inputs) == images for m in members)
    last = recipe.total_steps(images) if last_step is None else last_step
    per_epoch = recipe.steps_per_epoch(images)
    pack = _Pack(_Stack(network, members, kernel, device, pool), len(members), last)
    losses = torch.zeros(last, len(members), device=device, dtype=members[0].inputs.take(slice(0, 1)).dtype)
    clock = StepClock(device)
    done = 0
    with tensor_cores(recipe.precision):
        while pack.active and done < last:
            program, places = pack.stack.program, pack.places(device)
            for batch, wanted in pack.stack.steps(done, last):
                clock.before_step()
                if not program.is_ready(batch.shape[1]):
                    with clock.pause():
                        program.capture(batch, wanted)
                step_losses = program.step(batch, wanted, rate_factor(recipe, done, images))
                losses[done].index_copy_(0, places, step_losses)
                done += 1
                if looks is not None and done % per_epoch == 0 and looks.due(done // per_epoch):
                    with clock.pause():
                        if pack.look(looks, done // per_epoch, losses[:done]):
                            break
    return pack.done(losses, clock.seconds(done))
