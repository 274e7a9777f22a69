"""The input and the output of a method."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Made:
    """The output of a method that does more than select rows of the training data."""

    images: NDArray[np.uint8] | NDArray[np.float32]
    """[N, C, H, W]; uint8 pixels, or float32 in `space` (of the space pixel: in [0, 1])."""
    labels: NDArray[np.int64]
    """[N], class numbers."""
    sources: NDArray[np.int64] | None = None
    """[N, tiles], rows of the pool that each image was made from."""
    grid: tuple[int, int] = (1, 1)
    """Rows and columns of tiles in an image."""
    space: str = "pixel"
    """What the numbers are: pixel, or the pool's `space`."""
    soft_labels: NDArray[np.float32] | None = None
    """[N, classes], soft labels of the images, if any."""


def _no_pixels(rows: Rows) -> NDArray[np.uint8]:
    raise AssertionError(f"a pool without pixels cannot return {len(rows)} images")


Loop: TypeAlias = Callable[[int, Mapping[str, Any], np.random.Generator], Iterator[int]]
"""(steps, parts of the state, generator) -> the number of each step that is left."""


def unsaved(total: int, parts: Mapping[str, Any], generator: np.random.Generator) -> Iterator[int]:
    """All steps, of which nothing is saved."""
    del parts, generator
    return iter(range(total))


@dataclass(frozen=True)
class Pool:
    """The training data of a dataset, with the outputs of a scorer."""

    labels: NDArray[np.int64]
    """[N], class of each image."""
    classes: tuple[int, ...]
    """Class numbers in the compressed set."""
    ipc: int
    """Number of images per class in the compressed set."""
    generator: np.random.Generator
    """Random generator, seeded by the replicate and the settings of the method."""
    scores: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    """Scores [N] that the method declares, by name; larger is harder."""
    take: Callable[[Rows], NDArray[np.uint8]] = field(default=_no_pixels)
    """Function that returns the pixels [n, C, H, W] of the given rows."""
    shape: tuple[int, int, int] = (1, 1, 1)
    """Channels, height and width of an image."""
    space: str = "normalised"
    """Space of the network inputs: normalised or zca."""
    class_names: tuple[str, ...] = ()
    """Names of all classes, by their number."""
    features: NDArray[np.float32] | None = None
    """[N, D], the input of the scorer's last layer; only for methods that need features."""
    observe: Callable[[NDArray[np.uint8], Rows], NDArray[np.float32]] | None = None
    """Function (crops [n, C, h, w], classes [n]) -> the scorer's cross-entropy [n]; only for methods that
    need an observer."""
    device: str = "cpu"
    """The torch device of this process, such as `cuda`."""
    loop: Loop = unsaved
    """What `steps` iterates over; saves and restores the state."""

    def steps(self, total: int, **parts: Any) -> Iterator[int]:
        """The steps 0 to `total` - 1 of a method that trains; its entry must say `trains=True`.

        After a kill it starts at the step of the last saved state (at most one per minute is saved). `parts`
        are all objects that change from step to step, which are restored before the first step: tensors that
        are changed in place, torch generators, and objects with a `state_dict` (optimizers, networks). The
        state of `generator` is saved as well. A method has one such loop.
        """
        return self.loop(total, parts, self.generator)

    def rows_of(self, label: int) -> Rows:
        """Rows of one class, in order."""
        return np.flatnonzero(self.labels == label)

    def by_class(self, choose: Callable[[Rows], Rows]) -> Rows:
        """Concatenated results of `choose` for the rows of each class."""
        return np.concatenate([choose(self.rows_of(label)) for label in self.classes])
