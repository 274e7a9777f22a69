"""What a method chooses from, and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Made:
    """Images that a method made, where they are more than rows of the train part."""

    images: NDArray[np.uint8] | NDArray[np.float32]
    """[N, C, H, W]; uint8 pixels, or float32 in `space` (of the space pixel: in [0, 1])."""
    labels: NDArray[np.int64]
    """[N], class numbers."""
    sources: NDArray[np.int64] | None = None
    """[N, tiles], rows of the pool that an image was made from."""
    grid: tuple[int, int] = (1, 1)
    """Rows and columns of tiles in an image."""
    space: str = "pixel"
    """What the numbers are: pixel, or the pool's `space`."""
    soft_labels: NDArray[np.float32] | None = None
    """[N, classes], probabilities that the images bring along, if any."""


def _no_pixels(rows: Rows) -> NDArray[np.uint8]:
    raise AssertionError(f"a pool without pixels was asked for {len(rows)}")


Loop: TypeAlias = Callable[[int, Mapping[str, Any], np.random.Generator], Iterator[int]]
"""(steps, parts of the state, generator) -> the number of each step that is left."""


def unsaved(total: int, parts: Mapping[str, Any], generator: np.random.Generator) -> Iterator[int]:
    """All steps, of which nothing is saved."""
    del parts, generator
    return iter(range(total))


@dataclass(frozen=True)
class Pool:
    """The train part of a dataset, with what a scorer says of it."""

    labels: NDArray[np.int64]
    """[N], class of each image."""
    classes: tuple[int, ...]
    """Class numbers that the compressed set holds."""
    ipc: int
    """Images that each class may store."""
    generator: np.random.Generator
    """Seeded by the replicate and by what the method depends on."""
    scores: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    """[N] each, the scores that the method declares, by name; larger is harder."""
    take: Callable[[Rows], NDArray[np.uint8]] = field(default=_no_pixels)
    """Pixels [n, C, H, W] of some rows."""
    shape: tuple[int, int, int] = (1, 1, 1)
    """Channels, height and width of an image."""
    space: str = "normalised"
    """What network inputs are: normalised or zca."""
    class_names: tuple[str, ...] = ()
    """Names of all classes, by their number."""
    features: NDArray[np.float32] | None = None
    """[N, D], for methods that need features: the input of the scorer's last layer."""
    observe: Callable[[NDArray[np.uint8], Rows], NDArray[np.float32]] | None = None
    """For methods that need an observer: crops [n, C, h, w] and their classes [n] -> the scorer's
    cross-entropy [n]."""
    device: str = "cpu"
    """The torch device of this process, such as `cuda`."""
    loop: Loop = unsaved
    """What `steps` goes through."""

    def steps(self, total: int, **parts: Any) -> Iterator[int]:
        """The steps 0 to `total` - 1 of a method that trains; its entry must say `trains=True`.

        After a kill it begins at the step where the last state was saved (at most one a minute is). `parts`
        are all that changes from step to step, which is restored before the first step is handed out: tensors
        that are changed in place, torch generators, and objects with a `state_dict` (optimizers, networks).
        The state of `generator` is saved as well. A method has one such loop: its state is that of the set.
        """
        return self.loop(total, parts, self.generator)

    def rows_of(self, label: int) -> Rows:
        """Rows of one class, in order."""
        return np.flatnonzero(self.labels == label)

    def by_class(self, choose: Callable[[Rows], Rows]) -> Rows:
        """`choose` applied to the rows of each class, one class after the other."""
        return np.concatenate([choose(self.rows_of(label)) for label in self.classes])
