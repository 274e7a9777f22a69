"""Exports the labels of a study as FKD files, together with their images.

    OUT/LABELS/epoch_E/batch_B.tar    views and logits (raydc.labels.fkd)
    OUT/LABELS/order.npy              images of each epoch, in the order of its batches
    OUT/LABELS/images/newCCC/*.png    the set, one folder per class

LABELS is the id of the label pass (for an ensemble, the first id and the number of passes). A student of
raydc learns from such a folder with `labels: {kind: fkd, path: OUT/LABELS}`. Third-party code can read the
batches; its sampler must follow order.npy.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from raydc.analysis.curves import finished
from raydc.augmentation.views import Views
from raydc.data.dataset import open_dataset
from raydc.data.image_set import CompressedSet
from raydc.errors import InputError
from raydc.files.full_disk import fault
from raydc.labels.fkd import check_views, export_views
from raydc.labels.replayed import ORDER
from raydc.spec.evaluation import Evaluation
from raydc.spec.facts import bind
from raydc.spec.plan import Planned, make_plan, set_size
from raydc.spec.result import Row
from raydc.spec.seeding import seed_of
from raydc.spec.study import load_study
from raydc.store.opening import open_store
from raydc.study.preflight import with_digests
from raydc.tracking import study_folder
from raydc.worker.workbench import Workbench


@dataclass(frozen=True)
class Exported:
    """Labels that were exported."""

    folder: Path
    key: dict[str, object]
    """Keys of `images` and `labels` of the evaluations that use them."""
    images: int
    batches: int
    nbytes: int
    """Bytes of all files except the images."""


def export_fkd(out: Path, rows: Sequence[Row], to: Path, store_uri: str | None = None) -> list[Exported]:
    """Write the view labels of the study at `out` that finished `rows` used to the folder `to`.

    Labels that are no longer in the store are made again. Raises `InputError` if there are none, or if FKD
    files cannot store their views; then nothing is written.
    """
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise InputError(f"--out is {str(to)!r}, which exists and is not empty; give a new folder")
    if not (path := out / study_folder.STUDY).is_file():
        raise InputError(f"{str(out)!r} has no {study_folder.STUDY}; give a run's folder")
    study = load_study(path)
    if study.search is not None:
        raise InputError(f"{str(out)!r} is a search, but export-labels needs a study with a grid")
    store = open_store(store_uri or study_folder.store_of(out))
    dataset = open_dataset(study.dataset, store)
    evaluations = with_digests(bind(study.evaluations(), dataset.facts, str(path)))
    chosen = _longest(make_plan(evaluations, dataset.id).evaluations, rows, dataset.classes)
    if not chosen:
        raise InputError(
            f"no finished evaluation of {str(out)!r} used labels of views (labels.kind per_view), which FKD "
            "files store; run such a study first, or remove --only"
        )
    bench = Workbench(dataset, store, torch.device("cpu"))
    for planned in chosen.values():
        _check(planned, bench)
    try:
        return [_export(planned, bench, to / name) for name, planned in chosen.items()]
    except Exception as error:
        shutil.rmtree(to, ignore_errors=True)
        if (reason := fault(error, to)) is None and not isinstance(error, OSError):
            raise
        raise InputError(f"--out is {str(to)!r}, which cannot be written ({reason or error})") from None


def _longest(evaluations: Sequence[Planned], rows: Sequence[Row], classes: int) -> dict[str, Planned]:
    """For each name of view labels, the evaluation in `rows` that uses most of them."""
    wanted = {str(row["evaluation_id"]) for row in finished(rows)}
    chosen: dict[str, Planned] = {}
    for planned in evaluations:
        if planned.id in wanted and planned.evaluation.labels_views:
            several = f"-x{len(planned.passes)}" if len(planned.passes) > 1 else ""
            name = planned.passes[0].id + several
            most = chosen.get(name, planned)
            chosen[name] = max((most, planned), key=lambda p: _steps(p.evaluation, classes))
    return chosen


def _steps(evaluation: Evaluation, classes: int) -> int:
    """Number of distinct views."""
    return evaluation.recipe.distinct_steps(set_size(evaluation, classes), evaluation.keep_views)


def _views(planned: Planned, bench: Workbench) -> Views:
    evaluation = planned.evaluation
    compressed, _ = bench.compressed_set(planned.compressed_set)
    key = seed_of("student views", evaluation.view_seed)
    return Views(evaluation.recipe, len(compressed), key, bench.device, grid=compressed.grid)


def _check(planned: Planned, bench: Workbench) -> None:
    """Raise `InputError` if the labels of an evaluation cannot be written."""
    compressed, _ = bench.compressed_set(planned.compressed_set)
    try:
        check_views(_views(planned, bench), _steps(planned.evaluation, bench.dataset.classes))
        if (np.diff(compressed.labels) < 0).any():
            raise InputError("its set is not ordered by class, as in a folder of images")
    except InputError as error:
        raise InputError(f"evaluation {planned.id}: {error}; use --only to exclude evaluations") from None


def _export(planned: Planned, bench: Workbench, to: Path) -> Exported:
    compressed, _ = bench.compressed_set(planned.compressed_set)
    evaluation = planned.evaluation
    count = len(compressed)
    steps = _steps(evaluation, bench.dataset.classes)
    logits, _ = bench.view_logits(planned.passes, count, steps)
    views = _views(planned, bench)
    export_views(to, views, logits, bench.dataset.resolution, steps)
    np.save(to / ORDER, _order(views, count, steps))
    nbytes = sum(file.stat().st_size for file in to.rglob("*") if file.is_file())
    if compressed.space == "pixel":
        _write_images(compressed, bench.dataset.classes, to / "images")
    key_values = {k: v for k, v in evaluation.point.items() if k.startswith(("images.", "labels."))}
    return Exported(to, key_values, count, steps, nbytes)


def _order(views: Views, images: int, steps: int) -> NDArray[np.int32]:
    """Images of each epoch of the first `steps` views: [epochs, images], with a complete last epoch."""
    epochs = -(-steps // views.per_epoch)
    every = torch.arange(images)
    rows = [every if s.index is None else s.index for s in views.steps(0, epochs * views.per_epoch)]
    return torch.cat(rows).view(epochs, images).numpy().astype(np.int32)


def _write_images(compressed: CompressedSet, classes: int, to: Path) -> None:
    # Zero-padded names sort in the order of the classes.
    digits = max(3, len(str(classes - 1)))
    for number, (image, label) in enumerate(zip(compressed.images, compressed.labels, strict=True)):
        where = to / f"new{label:0{digits}d}"
        where.mkdir(parents=True, exist_ok=True)
        pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
        Image.fromarray(pixels).save(where / f"{number:06d}.png")
