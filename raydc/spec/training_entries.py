"""Classes of catalogue entries for training: augmentations, losses, schedules, optimizers, networks, codecs.

The keys that an entry declares are passed to its code as keyword arguments, by their name in the block.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from raydc.errors import InputError, did_you_mean, one_of
from raydc.spec.keys import Key, Value
from raydc.spec.registry import Entry, Registry, Target


def misplaced_key(keys: Iterable[Key], block: str) -> str | None:
    """The problem if a key is not in the entry's block; None if all are."""
    for key in keys:
        if not key.name.startswith(f"{block}.") or key.name.count(".") != 1:
            return f"declares the key {key.name!r}, but its keys must be {block}.NAME"
    return None


@dataclass(frozen=True)
class Augmentation(Entry):
    """A change of the images of a batch; `target` is a function (images, *numbers, **keys) -> images.

    images: [B, C, H, W] float32, standardised; numbers: [B, 4] float32 in [0, 1), one argument for each of
    `streams`, the same on every device; the returned images have the same shape.

    With `alpha` it mixes images: (images, partner, share, numbers) -> (images, share), where partner [B]
    int64 is the position of the image that each image is mixed with, and share [B] the fraction of each
    image that remains.
    """

    keys: tuple[Key, ...] = ()
    """Keys of `train` that the augmentation reads."""
    streams: tuple[str, ...] = ()
    """Names of its streams of random numbers; default: one stream with its own name."""
    needs: tuple[str, ...] = ()
    """Further arguments: `strength` (train.augment_strength, a number) or `grid` ([B, 2] int64, rows and
    columns of tiles in each image)."""
    choices: tuple[str, ...] = ()
    """One of these is drawn for each batch and passed as `choice`."""
    alpha: str = ""
    """Key of `train` with the alpha of the Beta(alpha, alpha) distribution from which the share is drawn;
    empty for an augmentation that does not mix images."""

    NEEDS: ClassVar[tuple[str, ...]] = ("strength", "grid")

    @property
    def mixes(self) -> bool:
        """Whether the augmentation mixes the images of a batch and their targets."""
        return bool(self.alpha)

    @property
    def drawn(self) -> tuple[str, ...]:
        """Names of its streams of random numbers."""
        return () if self.mixes else self.streams or (self.name,)

    def problem(self) -> str | None:
        if self.alpha and self.alpha not in [key.name for key in self.keys]:
            return f"has the alpha {self.alpha!r}, which must be one of the keys that it declares"
        if self.mixes and (self.streams or self.choices or self.needs):
            return "mixes images, so it cannot have streams, choices or needs"
        return (
            super().problem()
            or misplaced_key(self.keys, "train")
            or self.not_one_of("needs", self.needs, self.NEEDS)
        )


@dataclass(frozen=True)
class Loss(Entry):
    """A training loss; `target` is a function (logits, targets, **keys) -> scalar.

    logits: [B, C] float32; targets: `raydc.training.losses.Targets` of the same batch.
    """

    keys: tuple[Key, ...] = ()
    """Keys of `train` that the loss reads."""
    stacked: Target = ""
    """The same loss for packs, as `package.module:attribute`: (logits [S, B, C], StackedTargets, **keys) ->
    [S]. Without it, the loss of each student in a pack is computed separately."""
    soft: bool = True
    """Whether the loss supports soft labels; otherwise it is for hard labels only."""
    needs: tuple[str, ...] = ()
    """What the loss reads in addition to probabilities: `logits` of the teacher, `classes` (one-hot)."""

    NEEDS: ClassVar[tuple[str, ...]] = ("logits", "classes")

    def targets(self) -> tuple[Target, ...]:
        return (self.target, self.stacked) if self.stacked else (self.target,)

    @property
    def reads(self) -> tuple[str, ...]:
        """Parts of the targets that a pack must stack for this loss."""
        return self.needs if self.stacked else tuple(dict.fromkeys((*self.needs, "classes")))

    def problem(self) -> str | None:
        return (
            super().problem()
            or misplaced_key(self.keys, "train")
            or self.not_one_of("needs", self.needs, self.NEEDS)
        )

    def check(self, kind: str, logits: bool, able: Iterable[str]) -> None:
        """Raise `InputError` if the loss cannot be used with labels of a kind.

        logits: whether the kind provides a teacher's logits; able: names of the kinds that do.
        """
        if "logits" in self.needs and not logits:
            raise InputError(
                f"train.loss is {self.name}, which needs a teacher's logits, but labels.kind is {kind}; "
                f"choose another loss, or labels.kind {one_of(able)}"
            )


@dataclass(frozen=True)
class Schedule(Entry):
    """A learning-rate schedule; `target` is a function (step, total, **keys) -> fraction of the peak rate.

    step: from 0 to total - 1; neither includes the warm-up.
    """

    keys: tuple[Key, ...] = ()
    """Keys of `train` that the schedule reads."""
    needs_length: bool = True
    """Whether the learning rate of a step depends on the length of the training. If it does not, a longer
    training of a teacher continues from the checkpoints of a shorter one."""

    def problem(self) -> str | None:
        return super().problem() or misplaced_key(self.keys, "train")


@dataclass(frozen=True)
class Optimizer(Entry):
    """An optimizer; `target` is a function (recipe, network, **keys) -> torch.optim.Optimizer."""

    keys: tuple[Key, ...] = ()
    """Keys of `train` that the optimizer reads."""
    stacked: Target = ""
    """The same optimizer for packs, as `package.module:attribute`, a
    `raydc.training.stacked.StackedOptimizer`. Without it, students are not packed."""

    def targets(self) -> tuple[Target, ...]:
        return (self.target, self.stacked) if self.stacked else (self.target,)

    def problem(self) -> str | None:
        return super().problem() or misplaced_key(self.keys, "train")


@dataclass(frozen=True)
class Network(Entry):
    """An architecture; `target` is a function (channels, classes, resolution) -> nn.Module.

    The module takes images [N, channels, resolution, resolution] and returns logits [N, classes]. Its weights
    come from torch's global generator, which is seeded before the call.
    """

    pattern: str = ""
    """Regular expression that matches the names of a family of networks; its named groups are passed as
    keyword arguments. Empty for a single network."""
    form: str = ""
    """The names of a family as written in messages, such as `timm/NAME`."""

    @cached_property
    def _compiled(self) -> re.Pattern[str]:
        return re.compile(self.pattern or re.escape(self.name))

    def match(self, arch: str) -> dict[str, str] | None:
        """Keyword arguments for the network `arch`; None if `arch` does not belong to this entry."""
        found = self._compiled.fullmatch(arch)
        return None if found is None else {k: v or "" for k, v in found.groupdict().items()}

    def problem(self) -> str | None:
        try:
            re.compile(self.pattern)
        except re.error as error:
            return f"has the pattern {self.pattern!r}, which is not a regular expression ({error})"
        return super().problem()


@dataclass(frozen=True)
class Codec(Entry):
    """How the logits of a label are stored; `target` is a class or function () ->
    `raydc.labels.codecs.Codec`."""


class Networks(Registry[Network]):
    """The networks, found by name or by the pattern of a family."""

    def of(self, arch: str) -> tuple[Network, dict[str, str]]:
        """The entry of `arch` and keyword arguments for its function; raises `InputError` if none matches."""
        for entry in self:
            if (found := entry.match(arch)) is not None:
                return entry, found
        raise InputError(f"there is no network {arch!r}; choose {self.forms()}{self.hint(arch)}")

    def forms(self) -> str:
        """All names and families, as written in messages."""
        return one_of(entry.form or entry.name for entry in self)

    def hint(self, arch: str) -> str:
        """`; did you mean X?`, or an empty string."""
        return did_you_mean(arch, [entry.name for entry in self if not entry.pattern])


@dataclass(frozen=True)
class Arch:
    """The name of a network, including networks of plugins."""

    networks: Networks

    def cast(self, given: Value) -> str:
        if not isinstance(given, str) or all(entry.match(given) is None for entry in self.networks):
            raise ValueError(self.networks.hint(str(given)).removeprefix("; "))
        return given

    def describe(self) -> str:
        return self.networks.forms()
