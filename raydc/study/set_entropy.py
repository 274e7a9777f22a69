"""Entropy and NLL of the compressed sets of a study, under one of its teachers or any other classifier.

Data and teachers are read from the study file in the study's folder, the sets from its rows. Nothing is
stored except the classifier, if it is not in the store yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from raydc.analysis.curves import finished, group, varying_keys
from raydc.analysis.entropy import SetPoint
from raydc.data.dataset import Dataset, open_dataset
from raydc.errors import InputError, did_you_mean, one_of
from raydc.networks import zoo
from raydc.spec.blocks import teacher_spec
from raydc.spec.evaluation import TeacherSpec
from raydc.spec.identity import IdBuilder
from raydc.spec.plan import TrajectoryJob
from raydc.spec.point import point_grammar
from raydc.spec.result import Row
from raydc.spec.seeding import seed_of
from raydc.spec.study import StudySpec, load_study
from raydc.spec.yaml_file import parse_yaml
from raydc.store.artifact import Store
from raydc.store.opening import open_store
from raydc.teachers.checkpoint import Loaded, check_given, file_digest, load_checkpoint
from raydc.teachers.crop_predictions import crop_predictions
from raydc.tracking import study_folder
from raydc.worker.making import make
from raydc.worker.trajectory_work import TrajectoryWork
from raydc.worker.workbench import Workbench

RATIOS = (0.08, 0.15, 0.25, 0.4, 0.6, 0.8, 1.0)


@dataclass(frozen=True)
class Judged:
    """Entropy and NLL of a classifier's predictions for the sets of a study."""

    classifier: str
    """Name, architecture and epoch of the classifier."""
    test_acc: float | None
    """Its accuracy on the test split, in [0, 1]."""
    points: list[SetPoint]
    missing: int
    """Number of sets of the study that are no longer in the store."""


def judge(
    out: Path,
    rows: Sequence[Row],
    *,
    teacher: str | None = None,
    epoch: int | None = None,
    ratios: Sequence[float] = RATIOS,
    draws: int = 4,
    seed: int = 0,
    store_uri: str | None = None,
) -> Judged:
    """Entropy and NLL of every set of `rows`, whole and in `draws` crops of each of `ratios`.

    `teacher` is the name of one of the study's teachers or a teacher block as YAML; `epoch` is
    one of its epochs (default: the last). Raises `InputError` if an argument is invalid.
    """
    ratios = sorted({*ratios, 1.0})
    if not 0 < ratios[0] <= ratios[-1] <= 1:
        bad = ratios[0] if ratios[0] <= 0 else ratios[-1]
        raise InputError(f"--ratio has {bad:g}, but must be above 0 and at most 1")
    if draws < 1:
        raise InputError(f"--draws is {draws}, but must be at least 1")
    sets = _sets(rows)
    path = out / study_folder.STUDY
    if not path.is_file():
        raise InputError(
            f"{str(out)!r} has no {study_folder.STUDY}, which defines the data; give a run's folder"
        )
    study = load_study(path)
    spec = _classifier(study, teacher)
    epoch = _epoch(spec, epoch)
    store = open_store(store_uri or study_folder.store_of(out))
    dataset = open_dataset(study.dataset, store)
    if {row["dataset_id"] for row in rows if row.get("dataset_id")} - {dataset.id}:
        raise InputError(f"{path}: the data are not those of the results; give the study that made them")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    bench = Workbench(dataset, store, device)
    present = {name: found for name, found in sets.items() if store.find("set", name) is not None}
    if not present:
        raise InputError(
            f"none of the {len(sets)} compressed sets is in the store; give --store, or run the study"
        )
    loaded = _load(spec, epoch, bench)
    points = []
    for name, (key, seeds) in present.items():
        classes = torch.from_numpy(bench.compressed_set(name)[0].labels)
        images = bench.relabeller.inputs(loaded, name)
        view_key = seed_of("entropy crops", seed, seeds[0])
        predictions = crop_predictions(loaded.teacher, images, classes, ratios, draws, view_key)
        points += [SetPoint(name, key, seeds, one.ratio, one.entropy, one.nll) for one in predictions]
    after = "" if epoch is None else f", epoch {epoch}"
    return Judged(f"{spec.name} ({spec.arch}{after})", loaded.test_acc, points, len(sets) - len(present))


def _sets(rows: Sequence[Row]) -> dict[str, tuple[dict[str, object], tuple[int, ...]]]:
    """(how it was made, replicates that use it) of every compressed set of `rows`."""
    rows = [row for row in finished(rows) if row.get("set_id")]
    if not rows:
        raise InputError("there is no finished evaluation, and so no compressed set; run the study first")
    names = ["images.method", "images.ipc"]
    names += [k for k in varying_keys(rows, names) if k.startswith("images.")]
    return {
        str(name): (
            {key: members[0].get(key) for key in names},
            tuple(sorted({int(row["seed"]) for row in members})),
        )
        for (name,), members in group(rows, ["set_id"]).items()
    }


def _classifier(study: StudySpec, given: str | None) -> TeacherSpec:
    """The teacher that `given` names or defines."""
    known = dict(study.teachers)
    if study.scorer is not None:
        known.setdefault(study.scorer.name, study.scorer)
    if given is None:
        if len(known) != 1:
            reason = (
                f"the study has {one_of(known).replace(' or ', ' and ')}" if known else "the study has none"
            )
            raise InputError(
                f"--teacher is missing, and {reason}; name one, or describe one as "
                "'{arch: resnet18-small, checkpoint: FILE}'"
            )
        return next(iter(known.values()))
    block = parse_yaml(given, "--teacher")
    if isinstance(block, dict):
        return teacher_spec(point_grammar(), "classifier", block, "--teacher: ")
    if given not in known:
        allowed = one_of([*known, "a block such as {arch: ..., checkpoint: FILE}"])
        raise InputError(f"--teacher is {given!r}, but must be {allowed}{did_you_mean(given, known)}")
    return known[given]


def _epoch(spec: TeacherSpec, epoch: int | None) -> int | None:
    """The epoch of the classifier; None for one that was trained elsewhere and has one state only."""
    if spec.is_buffer:
        if epoch is None:
            raise InputError("--epoch is missing; the classifier is a buffer of many epochs, so name one")
        return epoch
    if not spec.trained_here:
        if epoch is not None:
            raise InputError(f"--epoch is {epoch}, but {spec.name!r} is not trained here; remove it")
        return None
    assert spec.epochs is not None
    if epoch is not None and not 0 <= epoch <= spec.epochs:
        raise InputError(
            f"--epoch is {epoch}, but {spec.name!r} is trained for {spec.epochs} epochs; choose from "
            f"0 to {spec.epochs}"
        )
    return spec.epochs if epoch is None else epoch


def _load(spec: TeacherSpec, epoch: int | None, bench: Workbench) -> Loaded:
    """The classifier, made if it is not in the store."""
    dataset: Dataset = bench.dataset
    store: Store = bench.store
    zoo.check(spec.arch, dataset.channels, dataset.classes, dataset.resolution)
    if spec.checkpoint is not None:
        spec = replace(spec, digest=file_digest(spec.checkpoint))
    epochs = () if epoch is None else (epoch,)
    if not spec.trained_here:
        check_given(spec, dataset, epochs)
    job = TrajectoryJob(IdBuilder(dataset.id).trajectory(spec, 0), spec, 0, epochs)
    make(TrajectoryWork(job), bench)
    return load_checkpoint(dataset, spec, job.id, epoch, store, bench.device)
