"""Work: labels learnt by back-propagation through the training of students."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from raydc.labels import transforms
from raydc.labels.learned import BpttSettings, InnerProblem
from raydc.labels.learning import learn_stored
from raydc.networks.zoo import initialised
from raydc.spec.code import check_code, code_of
from raydc.spec.facts import DataFacts
from raydc.spec.keys import Value
from raydc.spec.plan import Planned
from raydc.spec.result import Row
from raydc.store.artifact import Store
from raydc.store.saved import OnProgress, Saved
from raydc.worker.work import Cost, Kind, Measure, Request
from raydc.worker.workbench import Workbench

LEARNED = Kind("learned labels", "sets", "outer steps")


@dataclass(frozen=True)
class LearnedWork:
    """The labels that are learnt for the students of a compressed set."""

    planned: Planned
    """Any evaluation that uses them."""

    kind = LEARNED
    title = "its learned labels"
    trains = True
    label_pass = None
    request = Request()

    @property
    def id(self) -> str:
        assert self.planned.learned is not None
        return self.planned.learned

    @property
    def needs(self) -> tuple[str, ...]:
        return self.planned.prerequisites

    @property
    def group(self) -> str:
        return self.id

    def cost(self, facts: DataFacts) -> Cost:
        evaluation = self.planned.evaluation
        like = _like(evaluation.arch, evaluation.ipc, evaluation.point)
        return Cost("outer steps", int(evaluation.point["labels.outer_steps"]), like)

    @staticmethod
    def measured(row: Row, facts: DataFacts) -> Measure | None:
        steps = row.get("labels.outer_steps")
        if not steps or row.get("labels_seconds") is None:
            return None
        like = _like(row["student.arch"], row["images.ipc"], row)
        return Measure(str(row["labels_id"]), like, float(steps), float(row["labels_seconds"]))

    def is_made(self, store: Store) -> bool:
        return store.is_intact("learned", self.id)

    def make(self, bench: Workbench, saved: Saved, progress: OnProgress) -> None:
        evaluation = self.planned.evaluation
        check_code(evaluation.code, code_of(evaluation.point))
        given = evaluation.block("labels")
        settings = BpttSettings(**{f.name: given[f.name] for f in fields(BpttSettings)})
        first = self._first_labels(bench, given).to(bench.device)
        learn_stored(self._problem(bench), settings, first, bench.store, saved, progress)

    def _problem(self, bench: Workbench) -> InnerProblem:
        data, evaluation, name = bench.dataset, self.planned.evaluation, self.id

        def fresh(step: int) -> nn.Module:
            shape = (data.channels, data.classes, data.resolution)
            return initialised(evaluation.arch, *shape, f"lesson {name}", step).to(bench.device)

        inputs, classes = bench.train
        grid = bench.compressed_set(self.planned.compressed_set)[0].grid
        images = bench.set_inputs(self.planned.compressed_set)
        return InnerProblem(images, inputs, classes, evaluation.recipe, fresh, name, grid)

    def _first_labels(self, bench: Workbench, given: Mapping[str, Value]) -> Tensor:
        """Initial labels [N, C]: a teacher's, or one-hot classes."""
        if self.planned.passes:
            logits, _ = bench.logits(self.planned.passes)
            return transforms.soften(transforms.ensemble(logits), float(given["temperature"]))
        labels = torch.from_numpy(bench.compressed_set(self.planned.compressed_set)[0].labels)
        return nn.functional.one_hot(labels, bench.dataset.classes).float()


def _like(arch: str, ipc: int, values: Mapping[str, Any]) -> str:
    inner = [values["labels.inner_steps"], values["labels.unroll_steps"], values["labels.real_batch"]]
    return " ".join(map(str, ["learning", arch, "ipc", ipc, "inner", *inner]))
