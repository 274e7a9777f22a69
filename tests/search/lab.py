"""A search with a worker that trains nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from raydc.data.dataset import Dataset
from raydc.search.answers import Answers
from raydc.search.ask_tell import Search
from raydc.search.history import history_of, searched
from raydc.search.points import FILE, Points
from raydc.spec.facts import bind
from raydc.spec.plan import Planned, make_plan
from raydc.spec.result import FINISHED, Row, make_row
from raydc.spec.study import StudySpec
from raydc.tracking.ledger import Ledger

SPACE = """
      labels.kind: {categorical: [hard, soft]}
      labels.temperature: {loguniform: [0.5, 20], when: {labels.kind: soft}}
      labels.teacher_epoch: {int: [1, 2], when: {labels.kind: soft}}
      train.lr: {loguniform: [0.001, 0.1]}
"""
SEARCH = """
seeds: 2
search:
  optuna:
    trials: 12
    winner_seeds: 3
    space:"""


def accuracy(planned: Planned) -> float:
    """An invented result: the higher the rate and the temperature, the better."""
    point = planned.evaluation.point
    return min(
        1.0,
        5 * point["train.lr"] + 0.01 * point.get("labels.temperature", 0) + 0.01 * planned.evaluation.seed,
    )


class Lab:
    """A worker that trains nothing, with the ledger of one folder."""

    def __init__(self, folder: Path, study: StudySpec, digits: Dataset, students: int = 2) -> None:
        self.ledger = Ledger(folder)
        self.trained: list[Planned] = []
        self.waiting: list[Planned] = []
        assert study.search is not None
        points = Points(folder / FILE, study.name, study.search, searched(study, digits.id))
        self.search = Search(
            study,
            points,
            lambda evaluations: make_plan(bind(evaluations, digits.facts, "small.yaml"), digits.id),
            Answers(self.ledger, {}, study.name),
        )
        self.search.keep_busy(students)

    def outcome(self, planned: Planned) -> Row:
        return {"status": FINISHED, "val_acc": accuracy(planned), "images_bytes": 10, "labels_bytes": 5}

    def train(self) -> None:
        planned = self.waiting.pop(0)
        self.trained.append(planned)
        row = make_row(
            planned,
            study="small",
            dataset_id="d",
            status=FINISHED,
            started_at=0.0,
            finished_at=1.0,
            attempts=1,
        )
        row |= self.outcome(planned)
        if planned.tested:
            row |= {"test_acc": row["val_acc"] - 0.01}
        self.ledger.append([row])
        self.waiting += self.search.hear([row])

    def run(self, most: float = math.inf) -> dict[str, Any]:
        """Train so many evaluations, or all."""
        self.waiting += self.search.ask()
        while self.waiting and len(self.trained) < most:
            self.train()
        return history_of(self.search, self.ledger)


Make = Callable[..., Lab]
