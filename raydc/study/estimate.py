"""Estimates of a study's time and space, from earlier evaluations."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from raydc.networks import zoo
from raydc.spec.facts import DataFacts
from raydc.spec.plan import STEP_OVERHEAD_IMAGES, Plan, set_size, student_cost
from raydc.spec.result import FINISHED, Row
from raydc.worker.planned_work import CLASSES
from raydc.worker.work import Measure, Work

FLOAT_BYTES = 4


@dataclass(frozen=True)
class Estimate:
    """Time and space of a plan; None if not known."""

    student_seconds: float | None
    """Training time of students, summed over evaluations, on one worker."""
    teacher_seconds: float | None
    """Training time of teachers, summed over epochs, on one worker."""
    store_bytes: int
    """Upper bound for checkpoints, logits and images (as plain pixels)."""
    checkpoint_bytes: int = 0
    """The part of `store_bytes` that checkpoints take."""
    work_seconds: Mapping[str, float | None] = field(default_factory=dict)
    """Time of other remaining work by the name of its kind, summed over pieces."""

    def like_these(self, examples: int, evaluations: int) -> Estimate:
        """The estimate for `evaluations` evaluations with the average cost of these `examples`."""
        seconds, part = self.student_seconds, evaluations / examples
        others = round((self.store_bytes - self.checkpoint_bytes) * part)
        return replace(
            self,
            student_seconds=None if seconds is None else seconds * part,
            work_seconds={k: None if s is None else s * part for k, s in self.work_seconds.items()},
            store_bytes=self.checkpoint_bytes + others,
        )


def rates(results: Iterable[Mapping[str, Any]], facts: DataFacts) -> dict[str, float]:
    """Seconds per training image by student architecture, from finished results on these data."""
    seconds: dict[str, float] = defaultdict(float)
    images: dict[str, float] = defaultdict(float)
    for row in results:
        if row["status"] != FINISHED or not row.get("steps"):
            continue
        size = row["images.ipc"] * facts.classes
        arch = str(row["student.arch"])
        images[arch] += row["steps"] * (min(size, row["train.batch_size"]) + STEP_OVERHEAD_IMAGES)
        images[arch] += (facts.test_images + facts.val_images) / 3
        seconds[arch] += row["train_seconds"] + row["test_seconds"] + row["setup_seconds"]
    return {arch: seconds[arch] / images[arch] for arch in seconds}


def work_rates(results: Iterable[Row], facts: DataFacts) -> dict[str, float]:
    """Seconds per step of unit size, by `Cost.like`, from earlier results on these data."""
    measures: dict[tuple[str, str], Measure] = {}
    for row in results:
        if row["status"] == FINISHED:
            found = (work.measured(row, facts) for work in CLASSES)
            measures |= {(m.like, m.id): m for m in found if m is not None}
    seconds: dict[str, float] = defaultdict(float)
    sizes: dict[str, float] = defaultdict(float)
    for (like, _), one in measures.items():
        seconds[like] += one.seconds
        sizes[like] += one.size
    return {like: seconds[like] / sizes[like] for like in seconds}


def price(works: Iterable[Work], facts: DataFacts, known: Mapping[str, float]) -> dict[str, float | None]:
    """Seconds of work by the name of its kind, summed over pieces; None if any is not known."""
    seconds: dict[str, float | None] = {}
    for work in works:
        cost, before = work.cost(facts), seconds.get(work.kind.name, 0.0)
        rate = known.get(cost.like)
        if rate is None or cost.steps is None or before is None:
            seconds[work.kind.name] = None
        else:
            seconds[work.kind.name] = before + rate * cost.steps * cost.scale
    return seconds


def estimate(
    plan: Plan,
    facts: DataFacts,
    known: Mapping[str, float],
    work_seconds: Mapping[str, float | None] | None = None,
) -> Estimate:
    """The estimate of the remaining work in `plan`, given rates by architecture.

    `work_seconds`: seconds of work other than that of teachers.
    """
    tests = facts.test_images + facts.val_images
    students: float | None = 0.0
    for planned in plan.evaluations:
        rate = known.get(planned.evaluation.arch)
        if rate is None or students is None:
            students = None
        else:
            students += rate * student_cost(planned.evaluation, facts.classes, tests)
    teachers: float | None = 0.0
    store = 0
    for job in plan.trajectories.values():
        epochs = max([*job.epochs, job.scored, 0])
        rate = known.get(job.teacher.arch)
        if epochs and (rate is None or teachers is None):
            teachers = None
        elif teachers is not None and rate is not None:
            teachers += rate * epochs * (sum(facts.train_counts) + tests / 3)
        store += _network_bytes(job.teacher.arch, facts) * 2 * max(1, len(job.epochs))
    checkpoints = store
    pixels = facts.channels * facts.resolution**2
    sizes = {n: set_size(job.evaluation, facts.classes) for n, job in plan.sets.items()}
    store += sum(sizes.values()) * pixels
    store += plan.forwards(facts.classes) * facts.classes * FLOAT_BYTES
    return Estimate(students, teachers, store, checkpoints, work_seconds or {})


def _network_bytes(arch: str, facts: DataFacts) -> int:
    with torch.device("meta"):
        network = zoo.build(arch, facts.channels, facts.classes, facts.resolution)
    return sum(p.numel() for p in network.parameters()) * FLOAT_BYTES
