"""The steps of a method that trains: counted, saved on the way, and gone on with after a kill."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from raydc.store.saved import OnProgress, Saved, State

logger = logging.getLogger(__name__)


@runtime_checkable
class Stateful(Protocol):
    """What has a state dict: optimizers, schedules, networks."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values, in dictionaries, lists and tuples."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any:
        """Take over what `state_dict` gave."""


Part: TypeAlias = Tensor | torch.Generator | Stateful
"""A part of a method's state: a tensor changed in place, a generator, or an object with a state dict."""


@dataclass(frozen=True)
class SavedSteps:
    """Loops whose state is saved at most once a minute, and restored when they begin again."""

    saved: Saved
    on_progress: OnProgress

    def __call__(
        self, total: int, parts: Mapping[str, Part], generator: np.random.Generator
    ) -> Iterator[int]:
        """Numbers of the steps that are left, up to `total`; see `raydc.methods.pool.Pool.steps`."""
        first = self._restore(parts, generator)
        self.on_progress(first, total)
        for step in range(first, total):
            yield step
            if self.saved.due and step + 1 < total:
                tensors, values = pack({name: _state_of(part) for name, part in parts.items()})
                draws = json.loads(json.dumps(generator.bit_generator.state, default=_plain))
                self.saved.save(step + 1, tensors, values=values, draws=draws)
            self.on_progress(step + 1, total)

    def _restore(self, parts: Mapping[str, Part], generator: np.random.Generator) -> int:
        """Put the newest saved state into the parts; returns the steps done."""
        state = self.saved.newest()
        if state is None:
            return 0
        if problem := _misfit(state, parts):
            logger.warning("a saved state does not fit (%s), so the method begins anew", problem)
            return 0
        held = unpack(state.tensors, state.meta["values"])
        for name, part in parts.items():
            if isinstance(part, Tensor):
                with torch.no_grad():
                    part.copy_(held[name])
            elif isinstance(part, torch.Generator):
                part.set_state(held[name])
            else:
                part.load_state_dict(held[name])
        generator.bit_generator.state = _arrays(state.meta["draws"])
        return state.step


def _state_of(part: Part) -> Any:
    if isinstance(part, Tensor):
        return part
    return part.get_state() if isinstance(part, torch.Generator) else part.state_dict()


def _misfit(state: State, parts: Mapping[str, Part]) -> str | None:
    """Why a saved state is not one of these parts, such as after a change of the method; None if it is."""
    values = state.meta.get("values")
    if not isinstance(values, dict) or "draws" not in state.meta:
        return "it is of another kind"
    names = {name for name, _ in values.get("dict", ())}
    if names != set(parts):
        return f"it has {sorted(names)}, the method has {sorted(parts)}"
    for name, part in parts.items():
        if isinstance(part, Tensor):
            held = state.tensors.get(name)
            if held is None or held.shape != part.shape or held.dtype != part.dtype:
                return f"{name!r} has another shape or type"
    return None


# --- nested states as tensors and JSON --------------------------------------------------------------


def pack(value: Any, name: str = "") -> tuple[dict[str, Tensor], Any]:
    """A nested state as its tensors by name, and the rest as JSON; `TypeError` if it holds anything else.

    It may hold tensors, numbers, strings, bools, None, and dictionaries (keys: str or int), lists and tuples.
    """
    if isinstance(value, Tensor):
        return {name: value}, {"tensor": name}
    if value is None or isinstance(value, bool | int | float | str):
        return {}, {"value": value}
    tensors: dict[str, Tensor] = {}
    packed = []
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str | int):
                raise TypeError(f"the state {name or 'of a method'!r} has the key {key!r}; use str or int")
            more, one = pack(item, f"{name}.{key}" if name else str(key))
            tensors |= more
            packed.append([key, one])
        return tensors, {"dict": packed}
    if isinstance(value, list | tuple):
        for number, item in enumerate(value):
            more, one = pack(item, f"{name}.{number}")
            tensors |= more
            packed.append(one)
        return tensors, {"list" if isinstance(value, list) else "tuple": packed}
    raise TypeError(
        f"the state {name!r} is {type(value).__name__}, but must be a tensor or a plain value, or hold those"
    )


def unpack(tensors: Mapping[str, Tensor], packed: Any) -> Any:
    """The nested state of `pack`."""
    ((kind, content),) = packed.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "value":
        return content
    if kind == "dict":
        return {key: unpack(tensors, item) for key, item in content}
    items = [unpack(tensors, item) for item in content]
    return items if kind == "list" else tuple(items)


def _plain(value: Any) -> Any:
    """NumPy's parts of a generator's state as JSON."""
    return {"array": value.tolist()} if isinstance(value, np.ndarray) else int(value)


def _arrays(state: Any) -> Any:
    """The reverse of `_plain`: a generator's arrays are uint64."""
    if isinstance(state, dict):
        if set(state) == {"array"}:
            return np.array(state["array"], np.uint64)
        return {key: _arrays(value) for key, value in state.items()}
    return state
