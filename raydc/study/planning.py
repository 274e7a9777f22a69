"""raydc plan: the cost of a study, with or without its data."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from raydc.errors import InputError
from raydc.files.atomic import write_atomically
from raydc.spec.plan import Plan, make_plan
from raydc.spec.quantities import duration, size
from raydc.spec.result import Row
from raydc.spec.study import StudySpec
from raydc.store.artifact import Store
from raydc.store.opening import open_store
from raydc.study.estimate import Estimate, estimate, price, rates, work_rates
from raydc.study.preflight import ReadyStudy, preflight, search_evaluations, with_digests
from raydc.tracking import study_folder
from raydc.tracking.ledger import read_rows
from raydc.worker.exported import export_line
from raydc.worker.planned_work import missing_work, work_of
from raydc.worker.trajectory_work import TEACHERS

UNKNOWN = "unknown"


@dataclass(frozen=True)
class StudyPlan:
    """A plan with its known costs."""

    study: StudySpec
    plan: Plan
    dataset_id: str | None
    """Id of the dataset; None if the data were not available."""
    finished: int
    elsewhere: int
    """Number of evaluations finished in other studies, which are reused."""
    made: Mapping[str, int]
    """Number of pieces of work in the store, by the name of their kind."""
    estimate: Estimate | None
    workers: int
    classes: int | None
    """Number of classes; None if the data were not available."""
    without_data: str | None
    """Why the data were not available; None if they were."""

    def rows(self) -> list[dict[str, Any]]:
        """One row per kind of work; for a search, whose points are not known, upper bounds."""
        plan, search = self.plan, self.study.search
        epochs = sum(max([*j.epochs, j.scored, 0]) for j in plan.trajectories.values())
        if search is None:
            elsewhere = f"{self.elsewhere} in other studies" if self.elsewhere else ""
            counted = [
                self._row("evaluations", len(plan.evaluations), self.finished + self.elsewhere, elsewhere),
                self._row("compressed sets", len(plan.sets), self.made.get("sets", 0)),
                self._row("label passes", len(plan.passes), self.made.get("labels", 0), self._forwards()),
            ]
        else:
            most = search_evaluations(self.study)
            networks = max((len(p.passes) for p in plan.evaluations), default=0)
            points = f"at most: {search.points} points"
            if (replicates := len(self.study.seeds)) > 1:
                points += f" x {replicates} replicates"
            if search.further:
                points += f", {search.finals} of finals"
            if search.winner_seeds:
                points += f", and {search.winner_seeds} of the winner"
            counted = [
                self._row("evaluations", most, self.finished, points),
                self._row("compressed sets", most, None, "at most"),
                self._row("label passes", most * networks, None, "at most"),
            ]
        teachers = self._row(
            "teachers", len(plan.trajectories), self.made.get("teachers", 0), f"{epochs} epochs in total"
        )
        return [
            counted[0],
            teachers,
            *counted[1:],
            *self._learned(),
            self._row("time left", *self._time()),
            self._row("storage", self._storage(), None),
        ]

    def _row(self, what: str, count: Any, done: Any, note: str = "") -> dict[str, Any]:
        known = self.dataset_id is not None
        return {"what": what, "count": count, "done": done if known else None, "note": note or None}

    def _learned(self) -> list[dict[str, Any]]:
        if not self.plan.learned:
            return []
        steps = sum(p.evaluation.point["labels.outer_steps"] for p in self.plan.learned.values())
        note = f"{steps:,} outer steps in total"
        return [self._row("learned labels", len(self.plan.learned), self.made.get("learned labels", 0), note)]

    def _forwards(self) -> str:
        if self.classes is None or not self.plan.passes:
            return ""
        return (
            f"{self.plan.forwards(self.classes):,} images forwarded; "
            f"a naive run forwards {self.plan.naive_forwards(self.classes):,}"
        )

    def _time(self) -> tuple[str, None, str]:
        if self.estimate is None or self.estimate.student_seconds is None:
            return UNKNOWN, None, "no earlier results with these networks on these data"
        students = self.estimate.student_seconds / self.workers
        teachers = self.estimate.teacher_seconds
        if teachers is None:
            return UNKNOWN, None, f"students {duration(students)}, teachers unknown"
        others = self.estimate.work_seconds
        parts = [("teachers", teachers), *others.items()]
        texts = [f"{name} {UNKNOWN if s is None else duration(s)}" for name, s in parts]
        note = f"{', '.join(texts)}, students {duration(students)} on {self.workers} workers"
        known = sum(seconds for _, seconds in parts if seconds is not None)
        least = "at least " if None in others.values() else ""
        return least + duration(known + students), None, note

    def _storage(self) -> str:
        if self.estimate is None:
            return UNKNOWN
        return f"{'at most' if self.study.search is None else 'about'} {size(self.estimate.store_bytes)}"


def plan_study(study: StudySpec, out: Path | None, store_uri: str | None, download: bool) -> StudyPlan:
    """Plan `study`; without its data, only the parts that do not need them."""
    out = out or Path("runs") / study.name
    store = open_store(store_uri or study.store_uri or study_folder.default_store(out))
    try:
        ready = preflight(study, store, download)
    except InputError as error:
        if not _data_are_missing(study):
            raise
        plan = make_plan(with_digests(study.evaluations()), "unknown data")
        return StudyPlan(study, plan, None, 0, 0, {}, None, 1, None, str(error))
    return _with_data(ready, out, store)


def _data_are_missing(study: StudySpec) -> bool:
    """Whether the study's data are missing on this machine, as opposed to invalid."""
    spec = study.dataset
    if spec.source == "named" and spec.location is None:
        return spec.name != "digits" and not Path("data").exists()
    return spec.location is not None and not Path(spec.location).exists()


def _with_data(ready: ReadyStudy, out: Path, store: Store) -> StudyPlan:
    dataset, plan = ready.dataset, ready.plan
    ledger = read_rows(out)
    shared: list[Row] = list(store.results(dataset.id))
    elsewhere = {row["evaluation_id"] for row in shared}
    finished = {n for n, row in ledger.items() if row["status"] == "finished"}
    earlier = [*shared, *ledger.values()]
    known, priced = rates(earlier, dataset.facts), work_rates(earlier, dataset.facts)
    if ready.study.search is None:
        names = {p.id for p in plan.evaluations}
        left_over = plan.without(finished | elsewhere)
        works = [w for w in missing_work(left_over, store, dataset.facts) if w.kind is not TEACHERS]
        work = estimate(left_over, dataset.facts, known, price(works, dataset.facts, priced))
    else:
        names = {n for n, row in ledger.items() if row.get("trial") is not None}
        left = search_evaluations(ready.study) - len(names & finished)
        works = [w for w in work_of(plan, dataset.classes) if w.kind is not TEACHERS]
        examples = estimate(plan, dataset.facts, known, price(works, dataset.facts, priced))
        work = examples.like_these(len(plan.evaluations), max(0, left))
    made = Counter(w.kind.name for w in work_of(plan, dataset.classes) if w.is_made(store))
    return StudyPlan(
        study=ready.study,
        plan=plan,
        dataset_id=dataset.id,
        finished=len(names & finished),
        elsewhere=len((names & elsewhere) - finished) if ready.study.search is None else 0,
        made=made,
        estimate=work,
        workers=_local_workers(ready.study),
        classes=dataset.classes,
        without_data=None,
    )


def _local_workers(study: StudySpec) -> int:
    """Number of students that this machine would train at the same time."""
    chosen = study.resources.workers
    if isinstance(chosen, int):
        return chosen
    if gpus := torch.cuda.device_count():
        return max(1, int(gpus * int(1 / study.resources.gpu_share)))
    return max(1, len(os.sched_getaffinity(0)) // study.resources.threads)


def export(planned: StudyPlan, path: Path) -> None:
    """Write the evaluations as JSON lines for `python -m raydc.evaluate`."""
    lines = [export_line(p, planned.study.name, planned.dataset_id) for p in planned.plan.evaluations]
    try:
        write_atomically(path, ("\n".join(lines) + "\n").encode())
    except OSError as error:
        raise InputError(f"--export is {str(path)!r}, which cannot be written: {error.strerror}") from None
