"""Learning of labels with saved states (raydc.store.saved), so that a kill loses at most a minute.

store: learned/NAME            the labels, in the format of logits, with the loss of each outer step
       progress/NAME-STEP      intermediate states, removed at the end
"""

from __future__ import annotations

from torch import Tensor

from raydc.labels.learned import BpttSettings, InnerProblem, Progress, learn
from raydc.labels.logits_file import write_logits
from raydc.store.artifact import Store
from raydc.store.saved import OnProgress, Saved


def learn_stored(
    problem: InnerProblem,
    settings: BpttSettings,
    first: Tensor,
    store: Store,
    saved: Saved,
    on_progress: OnProgress,
) -> None:
    """Learn labels from `first` [N, C], or from the newest state in `saved`, and store them as
    `learned/NAME`.

    `on_progress` is called with (outer steps done, outer steps in total).
    """
    progress = _resumed(first, saved)
    on_progress(progress.step, settings.outer_steps)
    for _ in learn(problem, settings, progress):
        if saved.due:
            saved.save(progress.step, _tensors(progress), losses=progress.losses)
        on_progress(progress.step, settings.outer_steps)
    with store.draft("learned") as draft:
        write_logits(draft.folder, progress.labels.cpu().numpy())
        draft.commit(problem.name, seconds=saved.seconds, losses=progress.losses)


def _resumed(first: Tensor, saved: Saved) -> Progress:
    """The newest saved state, on the device of `first`; or the initial one."""
    state = saved.newest()
    if state is None:
        return Progress.begin(first)
    tensors = {name: value.to(first.device) for name, value in state.tensors.items()}
    return Progress(**tensors, losses=list(state.meta["losses"]))


def _tensors(progress: Progress) -> dict[str, Tensor]:
    return {
        "labels": progress.labels,
        "first_moment": progress.first_moment,
        "second_moment": progress.second_moment,
        "length": progress.length,
    }
