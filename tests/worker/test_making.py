"""The loop in one process: every kind of work by the protocol alone, a new kind too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from raydc.data.dataset import Dataset
from raydc.errors import EvaluationError
from raydc.methods.pool import Made
from raydc.orchestration.prerequisites import steps_of
from raydc.spec.entries import Method
from raydc.spec.facts import DataFacts
from raydc.spec.plan import LabelPass, Plan
from raydc.spec.result import Row
from raydc.spec.study import StudySpec
from raydc.store.artifact import Store
from raydc.store.local import LocalStore
from raydc.store.saved import OnProgress, Saved
from raydc.worker.making import make, make_everything
from raydc.worker.planned_work import missing_work, work_of
from raydc.worker.work import Cost, Kind, Measure, Request, Work
from raydc.worker.workbench import Workbench

COUNTED = Kind("counts", "counts", "numbers")


@dataclass(frozen=True)
class CountWork:
    """A kind of work that raydc does not have: it counts to a number."""

    id: str
    most: int
    broken_at: int | None = None
    needs: tuple[str, ...] = ()

    kind = COUNTED
    title = "its count"
    trains = True
    group = ""
    request = Request()

    @property
    def label_pass(self) -> LabelPass | None:
        return None

    def cost(self, facts: DataFacts) -> Cost:
        return Cost("numbers", self.most, "counting")

    @staticmethod
    def measured(row: Row, facts: DataFacts) -> Measure | None:
        return None

    def is_made(self, store: Store) -> bool:
        return store.has("count", self.id)

    def make(self, bench: Workbench, saved: Saved, progress: OnProgress) -> None:
        state = saved.newest()
        numbers = torch.zeros(0) if state is None else state.tensors["numbers"]
        for number in range(len(numbers), self.most):
            if number == self.broken_at:
                raise KeyboardInterrupt
            numbers = torch.cat([numbers, torch.tensor([float(number)])])
            saved.save(number + 1, {"numbers": numbers})
            progress(number + 1, self.most)
        with bench.store.draft("count") as draft:
            np.save(draft.path("numbers.npy"), numbers.numpy())
            draft.commit(self.id)


@pytest.fixture
def own(digits: Dataset, tmp_path: Path) -> Workbench:
    return Workbench(digits, LocalStore(tmp_path), torch.device("cpu"))


def test_a_new_kind_of_work_goes_on_after_a_kill_and_leaves_no_state(own: Workbench) -> None:
    heard: list[tuple[int, int]] = []
    with pytest.raises(KeyboardInterrupt):
        make(CountWork("a", 5, broken_at=3), own, lambda *given: heard.append(given))
    assert own.store.names("progress") == ["a-0000002", "a-0000003"]
    work: Work = CountWork("a", 5)
    make(work, own, lambda *given: heard.append(given))
    assert heard == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]
    assert own.store.names("progress") == []
    make(work, own, lambda *given: heard.append(given))
    assert len(heard) == 5
    assert steps_of(work, own.dataset.facts) == 5


def test_what_needs_broken_work_is_not_tried(
    own: Workbench, small: Callable[..., StudySpec], planned: Callable[[StudySpec], Plan]
) -> None:
    plan = planned(small("teacher.lr=1e30", "grid.labels.kind=[hard, soft]"))
    broken = make_everything(plan, own)
    assert set(broken) == {*plan.trajectories, *plan.passes}
    assert len(set(broken.values())) == 1
    assert next(iter(broken.values())).startswith("EvaluationError: the loss is")


def test_only_what_is_missing_is_asked_for(
    own: Workbench, small: Callable[..., StudySpec], planned: Callable[[StudySpec], Plan]
) -> None:
    plan = planned(small("base.labels.kind=soft", "grid.labels.teacher_epoch=[1, 2]"))
    facts = own.dataset.facts
    ids = [work.id for work in work_of(plan, facts.classes)]
    assert [work.id for work in missing_work(plan, own.store, facts)] == ids
    assert make_everything(plan, own) == {}
    for kind in ("checkpoint", "logits"):
        for name in own.store.names(kind):
            if name.endswith("-00002") or name in [p.id for p in plan.passes.values() if p.epoch == 2]:
                own.store.remove(kind, name)
    left = missing_work(plan, own.store, facts)
    assert [work.kind.name for work in left] == ["teachers", "labels"]
    assert left[0].job.epochs == (2,)  # type: ignore[attr-defined]
    own.store.remove("checkpoint", f"{left[0].id}-00001")
    for work in left:
        make(work, own)
    # The checkpoint of epoch 1 is missing, but nothing that is missing needs it.
    assert missing_work(plan, own.store, facts) == []


# --- images that a method makes -------------------------------------------------------------------


@pytest.fixture
def set_of(
    own: Workbench,
    small: Callable[..., StudySpec],
    planned: Callable[[StudySpec], Plan],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., np.ndarray]:
    """The set of a method that returns some images, as a student meets it."""

    def make_set(images: np.ndarray, space: str, *, trains: bool = False) -> np.ndarray:
        labels = np.arange(10)

        def method(pool: object) -> Made:
            if trains:
                list(pool.steps(3))  # type: ignore[attr-defined]
            return Made(images, labels, space=space)

        monkeypatch.setattr(Method, "load", lambda _: method)
        plan = planned(small("base.images.ipc=1"))
        (work,) = (w for w in work_of(plan, 10) if w.kind.name == "sets")
        make(work, own)
        return own.compressed_set(work.id)[0].images

    return make_set


def test_float_images_are_stored(set_of: Callable[..., np.ndarray]) -> None:
    images = np.random.default_rng(0).normal(size=(10, 1, 8, 8)).astype(np.float32)
    stored = set_of(images, "normalised")
    assert stored.dtype == np.float32
    np.testing.assert_array_equal(stored, images.astype(np.float16).astype(np.float32))


def test_float_pixels_are_stored_as_the_nearest_pixels(set_of: Callable[..., np.ndarray]) -> None:
    images = np.linspace(0, 1, 640, dtype=np.float32).reshape(10, 1, 8, 8)
    stored = set_of(images, "pixel")
    assert stored.dtype == np.uint8
    np.testing.assert_array_equal(stored, np.rint(images * 255))


@pytest.mark.parametrize(
    ("fill", "space", "said"),
    [
        (np.nan, "normalised", "values that are not finite or exceed 65,504"),
        (1e5, "normalised", "values that are not finite or exceed 65,504"),
        (1.5, "pixel", r"with values from 1\.5 to 1\.5, but floats in the space pixel must be from 0 to 1"),
        (np.nan, "pixel", "floats in the space pixel must be from 0 to 1"),
        (0.5, "zca", "in the space zca, but the study's inputs are normalised"),
    ],
)
def test_images_that_are_none_are_refused(
    set_of: Callable[..., np.ndarray], fill: float, space: str, said: str
) -> None:
    with pytest.raises(EvaluationError, match=said):
        set_of(np.full((10, 1, 8, 8), fill, np.float32), space)


def test_steps_need_an_entry_that_says_so(set_of: Callable[..., np.ndarray]) -> None:
    with pytest.raises(TypeError, match="the method takes 3 steps, but its entry does not set trains=True"):
        set_of(np.zeros((10, 1, 8, 8), np.float32), "normalised", trains=True)
