"""Work of a search: who waits for what, without Ray."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from ray.tune.search import Searcher

from raydc.orchestration.bundle_searcher import BundleSearcher
from raydc.orchestration.pending import PendingWork
from raydc.orchestration.trainable import unpack, unpack_bundle
from raydc.spec.plan import Plan, Planned, SearchOrigin
from raydc.spec.result import make_row
from raydc.spec.study import StudySpec
from raydc.store.local import LocalStore
from raydc.worker.planned_work import work_of_point
from raydc.worker.work import Work

LEARNED = (
    "{labels.kind: [learned], labels.unroll_steps: [2], labels.inner_steps: [4], labels.outer_steps: [3]}"
)


@dataclass
class Desk:
    """A searcher whose evaluations wait for work, and its rows."""

    searcher: BundleSearcher
    rows: list[dict[str, Any]]
    store: LocalStore

    def suggest(self) -> Iterator[tuple[str, Any]]:
        """Everything that can be handed out now, as (trial, works or evaluations)."""
        while isinstance(config := self.searcher.suggest(name := f"t{next(COUNT)}"), dict):
            yield name, unpack(config["works"]) if "works" in config else unpack_bundle(config["bundle"])

    def end_work(self, trial: str, works: list[Work], error: str | None = None) -> None:
        self.searcher.on_trial_complete(trial, {"made": json.dumps([(work.id, error) for work in works])})

    def end(self, trial: str, bundle: list[tuple[Planned, int]]) -> None:
        rows = [
            make_row(
                planned, study="s", dataset_id="d", status="finished", started_at=0.0, finished_at=1.0,
                attempts=attempts,
            )
            for planned, attempts in bundle
        ]  # fmt: skip
        self.searcher.on_trial_complete(trial, {"rows": json.dumps(rows)})


COUNT = iter(range(10**6))


@pytest.fixture
def desk(
    small: Callable[..., StudySpec], planned: Callable[[StudySpec], Plan], tmp_path: Path
) -> Callable[..., Desk]:
    def make(*settings: str, workers: int = 2, retries: int = 1) -> Desk:
        plan = planned(small(*settings))
        store = LocalStore(tmp_path / "store")
        rows: list[dict[str, Any]] = []
        evaluations = [
            replace(p, origin=SearchOrigin(n, plan.sets[p.compressed_set]))
            for n, p in enumerate(plan.evaluations)
        ]
        searcher = BundleSearcher(
            evaluations,
            cost=lambda _: 1.0,
            workers=workers,
            retries=retries,
            study="s",
            dataset_id="d",
            sink=rows.extend,
            pending=PendingWork(work_of_point, store, workers),
        )
        return Desk(searcher, rows, store)

    return make


def test_students_begin_when_their_set_is_there(desk: Callable[..., Desk]) -> None:
    one = desk("grid.images.ipc=[1, 2]", "grid.train.lr=[0.1, 0.2]")
    (first, second) = one.suggest()
    assert [len(works) for _, works in (first, second)] == [1, 1]
    assert one.searcher.suggest("t") is None
    one.end_work(*first)
    for trial, bundle in one.suggest():
        assert {planned.compressed_set for planned, _ in bundle} == {first[1][0].id}
        one.end(trial, bundle)
    assert len(one.rows) == 2
    one.end_work(*second)
    while len(one.rows) < 4:
        for trial, bundle in one.suggest():
            one.end(trial, bundle)
    assert {row["status"] for row in one.rows} == {"finished"}
    assert one.searcher.suggest("t") == Searcher.FINISHED


def test_what_is_in_the_store_is_not_waited_for(desk: Callable[..., Desk], tmp_path: Path) -> None:
    (_, works), *_ = desk().suggest()
    with LocalStore(tmp_path / "store").draft("set") as draft:
        draft.path("x").write_text("a set")
        draft.commit(works[0].id)
    ((trial, bundle),) = desk().suggest()
    assert isinstance(trial, str)
    assert isinstance(bundle[0][0], Planned)


def test_learned_labels_wait_for_their_set_and_students_for_both(desk: Callable[..., Desk]) -> None:
    one = desk(f"grid={LEARNED}")
    ((trial, works),) = one.suggest()
    assert [work.kind.name for work in works] == ["sets"]
    one.end_work(trial, works)
    ((trial, works),) = one.suggest()
    assert [work.kind.name for work in works] == ["learned labels"]
    one.end_work(trial, works)
    ((_, bundle),) = one.suggest()
    assert isinstance(bundle[0][0], Planned)


def test_a_set_that_cannot_be_made_fails_the_evaluations_of_its_point(desk: Callable[..., Desk]) -> None:
    one = desk("grid.images.ipc=[1, 2]", "seeds=2", f"grid={LEARNED.replace('}', ', images.ipc: [1, 2]}')}")
    works = dict(one.suggest())
    assert sum(map(len, works.values())) == 4  # of two replicates, which are random sets each
    trial, (bad, *others) = next(iter(works.items()))
    one.searcher.on_trial_result(trial, {"made": json.dumps([(bad.id, "EvaluationError: no image")])})
    (row,) = one.rows
    assert (row["status"], row["attempts"]) == ("failed", 0)
    assert row["error"] == "not started: EvaluationError: no image"
    # Nobody needs its learned labels any more; those of the others come.
    one.end_work(trial, others)
    for name, rest in list(works.items())[1:]:
        one.end_work(name, rest)
    learned = [work for _, given in one.suggest() for work in given]
    assert [work.kind.name for work in learned] == ["learned labels"] * 3


def test_work_whose_worker_dies_is_tried_again_and_then_fails(desk: Callable[..., Desk]) -> None:
    one = desk("seeds=2", workers=1)
    ((trial, works),) = one.suggest()
    assert len(works) == 2
    one.searcher.on_trial_complete(trial, None, error=True)
    # What may be deadly comes alone, and the one that had not begun is charged with nothing.
    (trial, first), (other, again) = one.suggest()
    assert {first[0].id, again[0].id} == {work.id for work in works}
    assert one.searcher._attempts[works[1].id] == 1
    deadly = trial if first[0].id == works[0].id else other
    one.searcher.on_trial_complete(deadly, None, error=True)
    trial, again = (other, again) if deadly == trial else (trial, first)
    (row,) = one.rows
    assert row["error"] == "not started: WorkerDied: its worker process died 2 times"
    assert [work.id for work in again] == [works[1].id]
    one.end_work(trial, again)
    ((_, bundle),) = one.suggest()
    assert len(bundle) == 1


def test_a_missing_artifact_is_left_to_be_made_again(desk: Callable[..., Desk]) -> None:
    one = desk()
    ((trial, works),) = one.suggest()
    one.end_work(trial, works, "ArtifactError: scores/a is not in the store s, or is damaged")
    assert one.rows == []
    assert [planned.compressed_set for planned in one.searcher.lost] == [works[0].id]
    assert one.searcher.suggest("t") == Searcher.FINISHED
