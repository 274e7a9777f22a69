"""Relabelling: logits of teachers' checkpoints on compressed sets, or on views of them.

label passes of one checkpoint --label--> Prediction, one artifact each --store--> the store
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from raydc.augmentation.views import Views
from raydc.data.dataset import Dataset
from raydc.data.image_set import CompressedSet
from raydc.errors import EvaluationError
from raydc.labels.codecs import size_of
from raydc.labels.logits_file import write_logits
from raydc.labels.views import segment_name, segments, spans
from raydc.spec.plan import LabelPass, ViewsAsked
from raydc.spec.seeding import seed_of
from raydc.store.artifact import Store
from raydc.teachers.checkpoint import Loaded
from raydc.training.inputs import Inputs, PixelInputs, TensorInputs
from raydc.worker.sets import Sets

WHOLE_BYTES = 64 << 20
"""Sets whose network inputs are at most this large are converted at once: for small images, converting batch
by batch takes a tenth longer."""


def labelled(label_pass: LabelPass, store: Store) -> bool:
    """Whether the logits of a pass are in the store."""
    if label_pass.views is None:
        return store.is_intact("logits", label_pass.id)
    made = store.find("set", label_pass.compressed_set)
    if made is None:
        return False
    steps = label_pass.views.steps(CompressedSet.count(made.folder))
    return segments(label_pass, store, steps)[1] >= steps


@dataclass(frozen=True)
class Prediction:
    """Logits of a checkpoint for a compressed set, or for some of its views: one artifact."""

    label_pass: str
    """Id of the label pass."""
    logits: Tensor | None = None
    """[N, C] float32 on the CPU, to be stored; None if the views were in the store already."""
    teacher_test_acc: float | None = None
    seconds: float = 0.0
    size: float = 0.0
    """Largest absolute value of the logits."""
    segment: tuple[str, int] | None = None
    """For views: (name of the segment, the step after its last); None for whole images."""
    last: bool = True
    """Whether this is the last prediction of the pass."""

    @property
    def images(self) -> int:
        """Number of images that were forwarded for it."""
        return 0 if self.logits is None else len(self.logits)

    @property
    def nbytes(self) -> int:
        """Bytes that it takes in memory until it is stored."""
        return 0 if self.logits is None else self.logits.nbytes


class Relabeller:
    """Labels the compressed sets of one dataset with its teachers."""

    def __init__(
        self,
        dataset: Dataset,
        store: Store,
        device: torch.device,
        sets: Sets,
        teacher: Callable[[LabelPass], Loaded],
    ) -> None:
        """teacher: the network of a label pass, resident on `device`."""
        self._dataset = dataset
        self._store = store
        self._device = device
        self._sets = sets
        self._teacher = teacher
        self.images_forwarded = 0
        """Number of images labelled so far."""

    def label(self, label_passes: Sequence[LabelPass]) -> Iterator[Prediction]:
        """Label several sets with one checkpoint; images of different sets share batches.

        All passes must be of one checkpoint. Predictions are not in the store before `store` is called.
        Memory is that of a set, a batch and the logits of a set or two, independent of the number of passes;
        the caller must limit how many yielded predictions it holds. `EvaluationError` if logits are not
        finite.
        """
        first = label_passes[0]
        assert all((p.trajectory, p.epoch) == (first.trajectory, first.epoch) for p in label_passes)
        loading = time.perf_counter()
        loaded = self._teacher(first)
        loading = time.perf_counter() - loading
        images = [p for p in label_passes if p.views is None]
        views = [(p, p.views) for p in label_passes if p.views is not None]
        parts = [self._label_images(loaded, images), *(self._label_views(loaded, *one) for one in views)]
        for prediction in (prediction for part in parts for prediction in part):
            self.images_forwarded += prediction.images
            # The time to load the network is counted for the first prediction.
            yield replace(prediction, seconds=prediction.seconds + loading)
            loading = 0.0

    def store(self, prediction: Prediction) -> None:
        """Store a prediction; may be called in another thread while `label` continues."""
        if prediction.logits is None:
            return
        with self._store.draft("logits") as draft:
            write_logits(draft.folder, prediction.logits.numpy())
            name, stop = prediction.segment or (prediction.label_pass, None)
            draft.commit(
                name,
                images=prediction.images,
                teacher_test_acc=prediction.teacher_test_acc,
                seconds=prediction.seconds,
                size=prediction.size,
                **({} if stop is None else {"stop": stop}),
            )

    def _label_images(self, loaded: Loaded, label_passes: list[LabelPass]) -> Iterator[Prediction]:
        counts = [self._sets.count(p.compressed_set) for p in label_passes]
        inputs = (self._teacher_inputs(loaded, p.compressed_set) for p in label_passes)
        outputs = loaded.teacher.in_turn(inputs, counts)
        for label_pass, (logits, seconds) in zip(label_passes, outputs, strict=True):
            size = _size(logits, label_pass)
            yield Prediction(label_pass.id, logits, loaded.test_acc, seconds, size)

    def _label_views(self, loaded: Loaded, label_pass: LabelPass, asked: ViewsAsked) -> Iterator[Prediction]:
        """Label the missing segments of a pass over views, one at a time."""
        images = self._sets.inputs(label_pass.compressed_set)
        steps = asked.steps(len(images))
        grid = self._sets.get(label_pass.compressed_set)[0].grid
        key = seed_of("student views", asked.seed)
        views = Views(asked.recipe, len(images), key, self._device, grid=grid)
        _, first = segments(label_pass, self._store, steps)
        if first >= steps:
            yield Prediction(label_pass.id)
            return
        missing = list(spans(first, steps, len(images), views.batch_size))
        rendered = (views.render(images, step).images for step in views.steps(first, steps))
        inputs = (TensorInputs(loaded.of_students(view)) for view in rendered)
        outputs = loaded.teacher.in_turn(inputs, (rows for _, _, rows in missing))
        for (start, stop, _), (logits, seconds) in zip(missing, outputs, strict=True):
            size = _size(logits, label_pass)
            segment = segment_name(label_pass, start), stop
            yield Prediction(
                label_pass.id, logits, loaded.test_acc, seconds, size, segment, last=stop == steps
            )

    def _teacher_inputs(self, loaded: Loaded, name: str) -> Inputs:
        """As `inputs`, but a large set is converted from pixels batch by batch if the result is
        bit-identical."""
        compressed, _ = self._sets.get(name)
        small = compressed.images.size * torch.float32.itemsize <= WHOLE_BYTES
        if small or compressed.space != "pixel" or self._dataset.whitening is not None:
            return TensorInputs(self.inputs(loaded, name))
        return PixelInputs(torch.from_numpy(compressed.images).to(self._device), loaded.inputs)

    def inputs(self, loaded: Loaded, name: str) -> Tensor:
        """A compressed set as the inputs [N, C, H, W] float32 that a teacher expects, on the device."""
        compressed, _ = self._sets.get(name)
        if compressed.space != "pixel":
            return loaded.of_students(self._sets.inputs(name))
        return loaded.inputs(torch.from_numpy(compressed.images).to(self._device))


def _size(logits: Tensor, label_pass: LabelPass) -> float:
    """Largest absolute value of the logits; `EvaluationError` if they are not finite."""
    size = size_of(logits)
    if not math.isfinite(size):
        when = "" if label_pass.epoch is None else f" after epoch {label_pass.epoch}"
        advice = (
            "lower its lr or choose an earlier labels.teacher_epoch"
            if label_pass.teacher.trained_here
            else "give another checkpoint"
        )
        bad = int((~logits.isfinite().all(1)).sum())
        raise EvaluationError(
            f"the teacher {label_pass.teacher.name!r} (network {label_pass.index}){when} produced "
            f"non-finite logits for {bad:,} of {len(logits):,} images; {advice}"
        )
    return size
