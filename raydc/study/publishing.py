"""Records a study as a whole in its tracker: a note, its data and teachers, files, and the environment."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raydc.analysis.curves import finished
from raydc.report.html import summary_sentences
from raydc.report.result_tables import results_table
from raydc.report.tables import markdown
from raydc.search import history
from raydc.spec.plan import Plan, TrajectoryJob
from raydc.spec.result import FAILED, FINISHED, Row, teacher_columns
from raydc.store.artifact import Store
from raydc.teachers.expert import checkpoint_name
from raydc.tracking import study_folder
from raydc.tracking.tracker import TeacherCurve, Tracker, UsedDataset

if TYPE_CHECKING:
    from raydc.data.dataset import Dataset

FILES = (
    study_folder.STUDY,
    study_folder.PLAN,
    study_folder.RESULTS,
    study_folder.REPORT,
    study_folder.FIGURES,
    history.HISTORY,
)
"""Files and folders of a study's folder that are recorded if they exist."""
MOST_NOTED = 12
"""Largest number of configurations in the note."""


def publish_origin(tracker: Tracker, dataset: Dataset, plan: Plan, store: Store) -> None:
    """Record the origin of the results: data, teachers and environment."""
    counts = {"train": len(dataset.train), "test": len(dataset.test), "classes": dataset.classes}
    if dataset.val is not None:
        counts["val"] = len(dataset.val)
    source = str(dataset.spec.location or dataset.spec.name)
    tracker.used(UsedDataset(dataset.spec.name, dataset.fingerprint, source, counts))
    tracker.teachers(teacher_curves(plan, store))
    tracker.attach_text(environment(), "environment.txt")


def publish_results(tracker: Tracker, rows: Sequence[Row], out: Path) -> None:
    """Record the results: counts, a note, and the files of the study's folder."""
    status = [row["status"] for row in rows]
    measures = {"evaluations": len(rows), "finished": status.count(FINISHED), "failed": status.count(FAILED)}
    tracker.describe(measures, note(rows))
    tracker.attach(out / name for name in FILES)


def note(rows: Sequence[Row]) -> str:
    """A summary of the results in Markdown: sentences and the best configurations."""
    done = finished(rows)
    if not done:
        return f"No evaluation of {len(rows)} has finished."
    table = results_table(done, best_first=True)
    more = len(table.body) - MOST_NOTED
    best = replace(
        table,
        title="Best configurations",
        note="Chosen on validation images if there are any. "
        + (f"{more} more were evaluated." if more > 0 else ""),
        body=table.body[:MOST_NOTED],
    )
    text = "\n\n".join(summary_sentences(rows, []))
    return f"{text}\n\n{markdown([best])}\nThe report, figures, plan and environment are attached as files.\n"


def environment() -> str:
    """The machine, Python, and every installed package with its version."""
    packages = {f"{d.metadata['Name']}=={d.version}" for d in metadata.distributions()}
    machine = f"# {platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores"
    return "\n".join([machine, *sorted(packages, key=str.lower), ""])


def teacher_curves(plan: Plan, store: Store) -> Iterator[TeacherCurve]:
    """Training curves of each network that was trained here, from its last checkpoint in the store."""
    for job in plan.trajectories.values():
        if job.teacher.trained_here and job.epochs:
            artifact = store.find("checkpoint", checkpoint_name(job.id, max(job.epochs)))
            if artifact is not None:
                yield _curve(job, artifact.meta)


def _curve(job: TrajectoryJob, meta: Any) -> TeacherCurve:
    points = [
        (int(entry["epoch"]), "val_acc", float(entry["val_acc"]))
        for entry in meta["history"]
        if entry.get("val_acc") is not None
    ]
    if meta["test_acc"] is not None:
        points.append((int(meta["epoch"]), "test_acc", float(meta["test_acc"])))
    keys = {**teacher_columns("teacher", job.teacher), "teacher.index": job.index}
    words = dict.fromkeys(("teacher", job.teacher.name, job.teacher.arch, f"network {job.index}"))
    return TeacherCurve(job.id, " ".join(words), keys, tuple(points))
