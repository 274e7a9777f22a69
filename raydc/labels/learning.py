"""Labels being learnt: kept in the store on the way, so that a kill costs a minute at most.

store: learned/NAME            the labels, as logits are stored, with the loss of each outer step
       progress/NAME-STEP      the last state under way, removed at the end
"""

from __future__ import annotations

import time

from safetensors.torch import save_file
from torch import Tensor

from raydc.data.array_file import read_weights
from raydc.labels.learned import BpttSettings, InnerProblem, Progress, learn
from raydc.labels.logits_file import write_logits
from raydc.store.artifact import Store

SAVE_SECONDS = 60.0
"""Least time between two saves that only guard against a kill."""
STATE = "state.safetensors"


def learn_stored(problem: InnerProblem, settings: BpttSettings, first: Tensor, store: Store) -> None:
    """Learn labels from `first` [N, C] and store them as `learned/` and the lesson's name."""
    began = saved_at = time.monotonic()
    progress, earlier = _resumed(problem, first, store)
    for _ in learn(problem, settings, progress):
        if time.monotonic() - saved_at > SAVE_SECONDS:
            _save(problem.name, progress, earlier + time.monotonic() - began, store)
            saved_at = time.monotonic()
    with store.draft("learned") as draft:
        write_logits(draft.folder, progress.labels.cpu().numpy())
        seconds = earlier + time.monotonic() - began
        draft.commit(problem.name, seconds=seconds, losses=progress.losses)
    for saved in _saved(problem.name, store):
        store.remove("progress", saved)


def _resumed(problem: InnerProblem, first: Tensor, store: Store) -> tuple[Progress, float]:
    """The last saved state of a learning, and the seconds that it took; or its beginning."""
    device = first.device
    for name in reversed(_saved(problem.name, store)):
        if (artifact := store.find("progress", name)) is not None:
            state = {k: v.to(device) for k, v in read_weights(artifact.path(STATE)).items()}
            return Progress(**state, losses=list(artifact.meta["losses"])), float(artifact.meta["seconds"])
    return Progress.begin(first), 0.0


def _save(name: str, progress: Progress, seconds: float, store: Store) -> None:
    older = _saved(name, store)
    state = {
        "labels": progress.labels,
        "first_moment": progress.first_moment,
        "second_moment": progress.second_moment,
        "length": progress.length,
    }
    with store.draft("progress") as draft:
        save_file({k: v.detach().cpu().contiguous() for k, v in state.items()}, draft.path(STATE))
        draft.commit(f"{name}-{progress.step:07d}", losses=progress.losses, seconds=seconds)
    for saved in older:
        store.remove("progress", saved)


def _saved(name: str, store: Store) -> list[str]:
    return [saved for saved in store.names("progress") if saved.startswith(f"{name}-")]
