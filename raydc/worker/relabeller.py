"""Relabelling: what the checkpoints of teachers say of compressed sets, and of views of them.

label passes of one checkpoint --say--> Said, an artifact each --keep--> the store
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
"""Network inputs of a set that teachers take whole: batch by batch, small images cost a tenth more."""


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
    """What a checkpoint said of a compressed set, or of some of its views: one artifact."""

    label_pass: str
    """Id of the label pass."""
    logits: Tensor | None = None
    """[N, C] float32 on the CPU, to be stored; None if the views were in the store already."""
    teacher_test_acc: float | None = None
    seconds: float = 0.0
    size: float = 0.0
    """How far the logits are from 0 at most."""
    segment: tuple[str, int] | None = None
    """Of views: name of the segment, and the step after its last."""
    last: bool = True
    """Whether this is all, or the last, of the pass."""

    @property
    def images(self) -> int:
        """That were forwarded for it."""
        return 0 if self.logits is None else len(self.logits)

    @property
    def nbytes(self) -> int:
        """What it takes in memory until it is stored."""
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
        """Images that were labelled."""

    def label(self, label_passes: Sequence[LabelPass]) -> Iterator[Prediction]:
        """Have one checkpoint label several sets; images of different sets share batches.

        All passes must be of one checkpoint. What was said is in the store after `keep`. Memory is that of a
        set, a batch and what was said of a set or two, however many the passes are; what is handed on is the
        caller's to bound. `EvaluationError` if the teacher says what is not finite.
        """
        first = label_passes[0]
        assert all((p.trajectory, p.epoch) == (first.trajectory, first.epoch) for p in label_passes)
        loading = time.perf_counter()
        loaded = self._teacher(first)
        loading = time.perf_counter() - loading
        images = [p for p in label_passes if p.views is None]
        views = [(p, p.views) for p in label_passes if p.views is not None]
        parts = [self._label_images(loaded, images), *(self._label_views(loaded, *one) for one in views)]
        for said in (said for part in parts for said in part):
            self.images_forwarded += said.images
            # The first has waited for the network.
            yield replace(said, seconds=said.seconds + loading)
            loading = 0.0

    def store(self, said: Prediction) -> None:
        """Store what a checkpoint said; may be called in another thread, while it goes on."""
        if said.logits is None:
            return
        with self._store.draft("logits") as draft:
            write_logits(draft.folder, said.logits.numpy())
            name, stop = said.segment or (said.label_pass, None)
            draft.commit(
                name,
                images=said.images,
                teacher_test_acc=said.teacher_test_acc,
                seconds=said.seconds,
                size=said.size,
                **({} if stop is None else {"stop": stop}),
            )

    def _label_images(self, loaded: Loaded, label_passes: list[LabelPass]) -> Iterator[Prediction]:
        counts = [self._sets.count(p.compressed_set) for p in label_passes]
        inputs = (self._teacher_inputs(loaded, p.compressed_set) for p in label_passes)
        said = loaded.teacher.in_turn(inputs, counts)
        for label_pass, (logits, seconds) in zip(label_passes, said, strict=True):
            size = _size(logits, label_pass)
            yield Prediction(label_pass.id, logits, loaded.test_acc, seconds, size)

    def _label_views(self, loaded: Loaded, label_pass: LabelPass, asked: ViewsAsked) -> Iterator[Prediction]:
        """Label what is missing of a pass over views, a segment at a time."""
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
        said = loaded.teacher.in_turn(inputs, (rows for _, _, rows in missing))
        for (start, stop, _), (logits, seconds) in zip(missing, said, strict=True):
            size = _size(logits, label_pass)
            segment = segment_name(label_pass, start), stop
            yield Prediction(
                label_pass.id, logits, loaded.test_acc, seconds, size, segment, last=stop == steps
            )

    def _teacher_inputs(self, loaded: Loaded, name: str) -> Inputs:
        """As `inputs`; a large set stays pixels until a batch is made, where that changes no bit."""
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
    """How far logits are from 0 at most; `EvaluationError` if they are not finite."""
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
            f"the teacher {label_pass.teacher.name!r} (network {label_pass.index}){when} says what is not "
            f"finite of {bad:,} of {len(logits):,} images; {advice}"
        )
    return size
