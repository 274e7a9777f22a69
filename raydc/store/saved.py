"""Saved states of unfinished work, so that a kill loses at most a minute.

    store: progress/NAME-STEP    state.safetensors, with the step's JSON in the manifest

The two newest states of a piece of work are kept: if one is damaged, work resumes from the one before.
All are removed when the result is in the store.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from raydc.errors import InputError
from raydc.store.artifact import Artifact, Store

logger = logging.getLogger(__name__)

OnProgress = Callable[[int, int], None]
"""Called with (steps done, steps in total)."""

KIND = "progress"
STATE = "state.safetensors"
SUFFIX = ".safetensors"
SAVE_SECONDS = 60.0
"""Minimum time between two saved states of a piece of work."""
VARIABLE = "RAYDC_SAVE_SECONDS"
"""Environment variable that replaces SAVE_SECONDS."""


@dataclass(frozen=True)
class State:
    """A saved state of unfinished work."""

    step: int
    """Number of steps done."""
    tensors: Mapping[str, Tensor]
    """CPU tensors by name."""
    meta: Mapping[str, Any]
    """Plain JSON that was saved with the tensors."""


def save_seconds() -> float:
    """Minimum time between two states; `InputError` if RAYDC_SAVE_SECONDS is invalid."""
    given = os.environ.get(VARIABLE)
    if given is None:
        return SAVE_SECONDS
    try:
        seconds = float(given)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < math.inf:
        raise InputError(f"{VARIABLE} is {given!r}, but must be a number of seconds, 0 or more")
    return seconds


class Saved:
    """The saved states of one piece of work."""

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._name = name
        self._interval = save_seconds()
        self._began = self._saved_at = time.monotonic()
        self._earlier = 0.0

    @property
    def seconds(self) -> float:
        """Seconds that the work has taken, including the time before the last restored state."""
        return self._earlier + time.monotonic() - self._began

    @property
    def due(self) -> bool:
        """Whether the last state is old enough for another one; check before copying tensors."""
        return time.monotonic() - self._saved_at >= self._interval

    def save(self, step: int, tensors: Mapping[str, Tensor], **meta: Any) -> None:
        """Save a state, and keep the newest one before it.

        `tensors` may be on any device; `meta` must be plain JSON.
        """
        with self._store.draft(KIND) as draft:
            held = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
            save_file(held, draft.path(STATE))
            draft.commit(f"{self._name}-{step:07d}", **meta, seconds=self.seconds)
        others = [(number, name) for number, name in self._names() if number != step]
        for _, name in others[1:]:
            self._store.remove(KIND, name)
        self._saved_at = time.monotonic()

    def postpone(self) -> None:
        """Restart the minimum time, because work can already be resumed from another artifact."""
        self._saved_at = time.monotonic()

    def newest(self, at_most: int | None = None) -> State | None:
        """The newest readable state with at most `at_most` steps; None if there is none."""
        for step, name in self._names():
            if at_most is not None and step > at_most:
                continue
            artifact = self._store.find(KIND, name)
            tensors = None if artifact is None else _read(artifact)
            if artifact is not None and tensors is not None:
                meta = dict(artifact.meta)
                self._earlier, self._began = float(meta.pop("seconds", 0.0)), time.monotonic()
                return State(step, tensors, meta)
        return None

    def clear(self) -> None:
        """Remove all states."""
        for _, name in self._names():
            self._store.remove(KIND, name)

    def _names(self) -> list[tuple[int, str]]:
        """(steps done, name of the artifact) of each state, newest first."""
        found = []
        for name in self._store.names(KIND):
            work, _, step = name.rpartition("-")
            if work == self._name and step.isdigit():
                found.append((int(step), name))
        return sorted(found, reverse=True)


def _read(artifact: Artifact) -> dict[str, Tensor] | None:
    """The tensors of a state, or None if unreadable; names from a file NAME other than `state` get the prefix
    `NAME.`."""
    tensors: dict[str, Tensor] = {}
    try:
        for file in artifact.files:
            prefix = "" if file == STATE else f"{file.removesuffix(SUFFIX)}."
            content = load_file(artifact.path(file))
            tensors |= {f"{prefix}{name}": tensor for name, tensor in content.items()}
    except (SafetensorError, OSError, KeyError) as error:
        logger.warning("%s cannot be read (%s); the state before it is used", artifact.folder, error)
        return None
    return tensors
