"""Data and evaluations for the benchmarks, without pydantic or Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from raydc.data.dataset import Dataset, open_dataset
from raydc.spec.evaluation import DatasetSpec, Evaluation, TeacherSpec
from raydc.spec.facts import bind
from raydc.spec.plan import Plan, make_plan
from raydc.spec.point import cast, point_grammar, resolve
from raydc.store.opening import open_store
from raydc.worker.making import make_everything
from raydc.worker.workbench import Workbench

DIGITS_VAL = 297 / 1297


def dataset_of(data: str | None, work: Path) -> Dataset:
    """CIFAR-10 from a folder of Parquet files, or the digits that come with scikit-learn."""
    spec = (
        DatasetSpec("digits", "named", val_fraction=DIGITS_VAL)
        if data is None
        else DatasetSpec("cifar10", "parquet", location=data)
    )
    return open_dataset(spec, open_store(str(work / "store")))


def evaluation(dataset: Dataset, seed: int = 0, teacher: str | None = None, **keys: Any) -> Evaluation:
    """A point given as block__key=value, resolved; `teacher` is an architecture (untrained)."""
    grammar = point_grammar()
    dotted = {name.replace("__", "."): value for name, value in keys.items()}
    point = resolve(grammar, {name: cast(grammar, name, value) for name, value in dotted.items()})
    spec = None
    if teacher is not None:
        train = resolve(
            grammar, {"images.ipc": 1, "student.arch": teacher, "train.recipe": "label-worth-expert"}
        )
        train = {k: v for k, v in train.items() if k.startswith("train.")}
        spec = TeacherSpec("teacher", teacher, train, keep=(0,))
        point["labels.teacher_epoch"] = 0
    return Evaluation(dataset.spec, point, seed, teacher=spec)


def plan_of(dataset: Dataset, evaluations: list[Evaluation]) -> Plan:
    """The plan of `evaluations` on `dataset`."""
    return make_plan(bind(evaluations, dataset.facts, "benchmark"), dataset.id)


def bench_of(dataset: Dataset, work: Path, device: str, plan: Plan | None = None) -> Workbench:
    """A workbench, with everything made that `plan` needs."""
    bench = Workbench(dataset, open_store(str(work / "store")), torch.device(device))
    if plan is not None:
        make_everything(plan, bench)
    return bench
