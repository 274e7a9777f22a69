"""Preflight: opens the data of a study, checks the study against them, and plans its work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from raydc.data.dataset import Dataset, open_dataset
from raydc.data.hub import located
from raydc.data.imported import digest_of
from raydc.errors import InputError
from raydc.labels.replayed import Replayed, digest_of_labels
from raydc.labels.soft_label_file import read_soft_labels
from raydc.networks import zoo
from raydc.spec import catalog
from raydc.spec.evaluation import Evaluation, TeacherSpec, canonical_json
from raydc.spec.facts import bind
from raydc.spec.label_kinds import LABELS_PATH
from raydc.spec.plan import Plan, make_plan, set_size
from raydc.spec.point import point_grammar
from raydc.spec.study import StudySpec
from raydc.store.artifact import Store
from raydc.teachers.checkpoint import check_given, file_digest
from raydc.worker.compressor import method_keys, pool_of


@dataclass(frozen=True)
class ReadyStudy:
    """A study that has passed its checks, with its data and plan."""

    study: StudySpec
    dataset: Dataset
    store: Store
    plan: Plan

    @property
    def evaluations(self) -> int:
        """Number of evaluations of the study; for a search, an upper bound."""
        return len(self.plan.evaluations) if self.study.search is None else search_evaluations(self.study)


def search_evaluations(study: StudySpec) -> int:
    """Upper bound for the number of evaluations of a search."""
    assert study.search is not None
    return study.search.evaluations(len(study.seeds))


def with_digests(evaluations: Sequence[Evaluation], download: bool = False) -> list[Evaluation]:
    """The evaluations with the digests of their files, which replace the paths in ids.

    `download`: whether to download files from the hub that are not on this machine.
    """
    known: dict[str, str] = {}
    files = [key.name for key in point_grammar().keys.values() if key.file]

    def digests(evaluation: Evaluation) -> dict[str, str]:
        found = {}
        for key in files:
            if (path := evaluation.point.get(key)) is not None:
                name = f"{key} {path}"
                if name not in known:
                    if key == LABELS_PATH.name:
                        known[name] = digest_of_labels(path)
                    else:
                        located(key, path, download)
                        known[name] = digest_of(key, path)
                found[key] = known[name]
        return found

    def named(teacher: TeacherSpec | None) -> TeacherSpec | None:
        if teacher is None or teacher.checkpoint is None:
            return teacher
        if teacher.checkpoint not in known:
            known[teacher.checkpoint] = file_digest(teacher.checkpoint)
        return replace(teacher, digest=known[teacher.checkpoint])

    return [
        replace(e, teacher=named(e.teacher), scorer=named(e.scorer), digests=digests(e)) for e in evaluations
    ]


def check_files(evaluations: Sequence[Evaluation], dataset: Dataset) -> None:
    """Raise `InputError` if compressed sets or labels from files do not match the data."""
    seen: dict[str, bool] = {}
    opened: dict[tuple[str, int, int], Replayed] = {}
    for evaluation in evaluations:
        if "labels.path" in evaluation.digests:
            _check_labels(evaluation, dataset, opened)
        if not evaluation.files("images"):
            continue
        method = catalog.METHODS[evaluation.method]
        if method.trains:
            continue  # sets that a method has yet to make cannot be checked
        images = evaluation.block("images")
        name = canonical_json(images)
        if name not in seen:
            made = method.load()(pool_of(dataset, evaluation), **method_keys(evaluation))
            seen[name] = getattr(made, "soft_labels", None) is not None
        wanted = "soft_labels" in evaluation.label_needs and "labels.path" not in evaluation.point
        if wanted and not seen[name]:
            raise InputError(
                f"labels.kind is {evaluation.point['labels.kind']}, but the set at {images['path']!r} has "
                "no soft labels; choose hard or soft"
            )


def _check_labels(
    evaluation: Evaluation, dataset: Dataset, opened: dict[tuple[str, int, int], Replayed]
) -> None:
    """Raise `InputError` if the labels at `labels.path` do not match the set; `opened` caches folders."""
    path, images = str(evaluation.point["labels.path"]), set_size(evaluation, dataset.classes)
    if not evaluation.replays_views:
        read_soft_labels(path, images, dataset.classes)
        return
    name = path, images, int(evaluation.point["labels.order_seed"])
    if name not in opened:
        opened[name] = Replayed(*name[:2], dataset.classes, dataset.resolution, name[2])
    opened[name].check(evaluation.recipe, evaluation.keep_views)


def preflight(study: StudySpec, store: Store, download: bool = False) -> ReadyStudy:
    """Open the data, check the study against them, and plan; `InputError` if a check fails."""
    try:
        dataset = open_dataset(study.dataset, store, download=download)
    except InputError as error:
        raise InputError(f"{study.source}: {error}") from None
    evaluations = bind(study.evaluations(), dataset.facts, study.source)
    try:
        evaluations = with_digests(evaluations, download)
    except InputError as error:
        raise InputError(f"{study.source}: {error}") from None
    archs = {e.arch for e in evaluations}
    archs |= {t.arch for e in evaluations for t in (e.teacher, e.scorer) if t is not None}
    for arch in sorted(archs):
        try:
            zoo.check(arch, dataset.channels, dataset.classes, dataset.resolution)
        except InputError as error:
            raise InputError(f"{study.source}: {_key_of(arch, evaluations)}: {error}") from None
    given = {t.name: t for e in evaluations for t in (e.teacher, e.scorer) if t and not t.trained_here}
    for teacher in given.values():
        try:
            check_given(teacher, dataset, _epochs_of(teacher, evaluations))
        except InputError as error:
            raise InputError(f"{study.source}: {error}") from None
    try:
        check_files(evaluations, dataset)
    except InputError as error:
        raise InputError(f"{study.source}: {error}") from None
    if study.search is not None and dataset.val is None:
        raise InputError(
            f"{study.source}: dataset.val_fraction leaves no validation image, but a search needs them to "
            "choose; increase it"
        )
    return ReadyStudy(study, dataset, store, make_plan(evaluations, dataset.id))


def _epochs_of(teacher: TeacherSpec, evaluations: Sequence[Evaluation]) -> set[int]:
    """Epochs that are requested from a teacher."""
    asked = (e.point.get("labels.teacher_epoch") for e in evaluations if e.teacher == teacher)
    return {epoch for epoch in asked if epoch is not None}


def _key_of(arch: str, evaluations: Sequence[Evaluation]) -> str:
    """The key that names an architecture."""
    teachers = {
        t.name for e in evaluations for t in (e.teacher, e.scorer) if t is not None and t.arch == arch
    }
    return "student.arch" if any(e.arch == arch for e in evaluations) else f"{min(teachers)}.arch"
