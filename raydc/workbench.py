"""The workbench: makes and holds what evaluations need, each thing once.

One workbench serves one dataset on one device. What it makes goes to the store, what it reads comes
from there, and small things stay in memory between evaluations. Neither Ray nor MLflow is here: a
cluster runs many workbenches on one store.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from raydc.augmentation.views import Views
from raydc.compress import Compressor
from raydc.data.dataset import Dataset
from raydc.data.image_set import CompressedSet
from raydc.errors import ArtifactError, EvaluationError
from raydc.labels import transforms
from raydc.labels.codecs import size_of
from raydc.labels.learned import Course, Lesson
from raydc.labels.learning import learn_stored
from raydc.labels.replayed import Replayed, check_unchanged
from raydc.labels.store import read_logits, read_together, write_logits
from raydc.labels.views import RESIDENT_BYTES, ViewLogits, segment_name, segments, spans
from raydc.networks.zoo import initialised
from raydc.seeding import seed_of
from raydc.spec.evaluation import Evaluation, TeacherSpec
from raydc.spec.keys import Value
from raydc.spec.plan import LabelPass, Planned, SetJob, TrajectoryJob, ViewsAsked, set_size
from raydc.store import Artifact, Store, get
from raydc.teachers.checkpoint import Loaded, load_checkpoint, store_given
from raydc.teachers.expert import OnProgress, train_trajectory
from raydc.training.compiling import compiler
from raydc.training.engine import COMPILED, EAGER, Chassis
from raydc.training.group import ALONE, Group
from raydc.training.inputs import Inputs, PixelInputs, TensorInputs, part_inputs
from raydc.training.metrics import measure
from raydc.training.packed import Member
from raydc.training.roads import fastest_road, students_that_fit, worth_compiling

T = TypeVar("T")
HELD_BYTES = 2 << 30
"""Compressed sets, and as much of network inputs and of logits, that are held because they were used last.
More only if one alone is larger."""

WHOLE_BYTES = 64 << 20
"""Network inputs of a set that teachers take whole: batch by batch, small images cost a tenth more."""


class Recent:
    """The most recently used values, up to `size` of them.

    nbytes: what a value takes; the values together take at most HELD_BYTES, unless the last alone takes more.
    """

    def __init__(self, size: int, nbytes: Callable[[Any], int] = lambda value: 0) -> None:
        self._size = size
        self._nbytes = nbytes
        self._values: OrderedDict[Hashable, Any] = OrderedDict()

    def held(self, key: Hashable) -> Any | None:
        """The value of `key` if it is held."""
        return self._values.get(key)

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value of `key`, made now if it is not held."""
        if key not in self._values:
            self._values[key] = make()
            taken = sum(map(self._nbytes, self._values.values()))
            while len(self._values) > 1 and (len(self._values) > self._size or taken > HELD_BYTES):
                taken -= self._nbytes(self._values.popitem(last=False)[1])
        self._values.move_to_end(key)
        value: T = self._values[key]
        return value


class Labeller(Protocol):
    """Who makes a label pass that is not in the store yet."""

    def ensure(self, label_pass: LabelPass) -> None:
        """Return when the logits of `label_pass` are in the store."""


class Judge(Protocol):
    """Who may stop students early."""

    def goes_on(self, trial: int, rung: int, val_acc: float) -> bool:
        """Whether a student of the point `trial` goes on that has `val_acc` at a rung (evaluate.RUNGS)."""


class Lenient:
    """Lets every student go on to its end."""

    def goes_on(self, trial: int, rung: int, val_acc: float) -> bool:
        del trial, rung, val_acc
        return True


def labelled(label_pass: LabelPass, store: Store) -> bool:
    """Whether the logits of a pass are in the store."""
    if label_pass.views is None:
        return store.sound("logits", label_pass.id)
    made = store.find("set", label_pass.compressed_set)
    if made is None:
        return False
    steps = label_pass.views.steps(CompressedSet.count(made.folder))
    return segments(label_pass, store, steps)[1] >= steps


@dataclass(frozen=True)
class Said:
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


class Workbench:
    """What evaluations on one dataset need, made at most once."""

    def __init__(
        self,
        dataset: Dataset,
        store: Store,
        device: torch.device,
        labeller: Labeller | None = None,
    ) -> None:
        self.dataset = dataset
        self.store = store
        self.device = device
        self.labeller: Labeller = labeller if labeller is not None else self
        self.judge: Judge = Lenient()
        self.images_forwarded = 0
        """Images that teachers of this workbench have labelled."""
        self.compressor = Compressor(dataset, store, device, self._checkpoint)
        self._sets = Recent(64, lambda held: held[0].images.nbytes)
        self._teachers = Recent(8)
        self._inputs = Recent(16, lambda held: held.nbytes)
        self._logits = Recent(16, lambda held: held.nbytes)
        self._view_logits = Recent(8)
        self._replayed = Recent(4)
        self._unchanged = Recent(64)
        self._chassis = Recent(4)
        self._test_seconds: dict[tuple[str, str], float] = {}
        self._roads: dict[Hashable, str] = {}

    # --- teachers -----------------------------------------------------------------------------

    def make_trajectory(
        self, job: TrajectoryJob, on_progress: OnProgress | None = None, group: Group = ALONE
    ) -> None:
        """Train what is missing of a trajectory, or fetch a network that was trained elsewhere.

        `group`: the processes that train it together, each of which calls this.
        """
        if job.teacher.trained_here:
            train_trajectory(self.dataset, job, self.store, self.device, on_progress, group)
        else:
            store_given(job, self.dataset, self.store, self.device)

    def teacher(self, label_pass: LabelPass) -> Loaded:
        """The network of a label pass, resident on the device."""
        return self._checkpoint(label_pass.trajectory, label_pass.epoch, label_pass.teacher)

    def _checkpoint(self, trajectory: str, epoch: int | None, teacher: TeacherSpec) -> Loaded:
        return self._teachers.get(
            (trajectory, epoch),
            lambda: load_checkpoint(self.dataset, teacher, trajectory, epoch, self.store, self.device),
        )

    # --- compressed sets ----------------------------------------------------------------------

    def make_set(self, job: SetJob) -> None:
        """Make a compressed set that is not in the store; its scorers must be."""
        if self.store.sound("set", job.id):
            return
        start = time.perf_counter()
        images = job.evaluation.block("images")
        made = self.compressor.make(job)
        with self.store.draft("set") as draft:
            made.save(draft.folder, str(images["encoding"]), self.dataset.class_names)
            draft.commit(
                job.id,
                images=dict(images.items()),
                seed=job.evaluation.image_seed,
                images_bytes=made.images_bytes,
                seconds=time.perf_counter() - start,
            )

    def compressed_set(self, name: str) -> tuple[CompressedSet, Artifact]:
        """A compressed set from the store, with what was measured while it was made."""

        def load() -> tuple[CompressedSet, Artifact]:
            artifact = get(self.store, "set", name)
            return CompressedSet.load(artifact.folder), artifact

        return self._sets.get(name, load)

    def set_inputs(self, name: str) -> Tensor:
        """A compressed set as network inputs [N, C, H, W] float32 on the device."""

        def prepare() -> Tensor:
            compressed, _ = self.compressed_set(name)
            if compressed.space == "pixel":
                pixels = torch.from_numpy(compressed.images).to(self.device)
                return self.dataset.inputs(pixels)
            assert compressed.space == self.dataset.space, compressed.space
            return torch.from_numpy(compressed.images).to(self.device)

        return self._inputs.get(name, prepare)

    # --- labels -------------------------------------------------------------------------------

    def ensure(self, label_pass: LabelPass) -> None:
        """Forward the checkpoint over the set, unless its logits are in the store already."""
        if not labelled(label_pass, self.store):
            for said in self.say([label_pass]):
                self.keep(said)

    def say(self, label_passes: Sequence[LabelPass]) -> Iterator[Said]:
        """Have one checkpoint label several sets; images of different sets share batches.

        All passes must be of one checkpoint. What was said is in the store after `keep`. Memory is that of a
        set, a batch and what was said of a set or two, however many the passes are; what is handed on is the
        caller's to bound. `EvaluationError` if the teacher says what is not finite.
        """
        first = label_passes[0]
        assert all((p.trajectory, p.epoch) == (first.trajectory, first.epoch) for p in label_passes)
        loading = time.perf_counter()
        loaded = self.teacher(first)
        loading = time.perf_counter() - loading
        images = [p for p in label_passes if p.views is None]
        views = [(p, p.views) for p in label_passes if p.views is not None]
        parts = [self._label_images(loaded, images), *(self._label_views(loaded, *one) for one in views)]
        for said in (said for part in parts for said in part):
            self.images_forwarded += said.images
            # The first has waited for the network.
            yield replace(said, seconds=said.seconds + loading)
            loading = 0.0

    def keep(self, said: Said) -> None:
        """Store what a checkpoint said; may be called in another thread, while it goes on."""
        if said.logits is None:
            return
        with self.store.draft("logits") as draft:
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

    def _label_images(self, loaded: Loaded, label_passes: list[LabelPass]) -> Iterator[Said]:
        counts = [self._count(p.compressed_set) for p in label_passes]
        inputs = (self._teacher_inputs(loaded, p.compressed_set) for p in label_passes)
        said = loaded.teacher.in_turn(inputs, counts)
        for label_pass, (logits, seconds) in zip(label_passes, said, strict=True):
            size = _size(logits, label_pass)
            yield Said(label_pass.id, logits, loaded.test_acc, seconds, size)

    def _label_views(self, loaded: Loaded, label_pass: LabelPass, asked: ViewsAsked) -> Iterator[Said]:
        """Label what is missing of a pass over views, a segment at a time."""
        images = self.set_inputs(label_pass.compressed_set)
        steps = asked.steps(len(images))
        grid = self.compressed_set(label_pass.compressed_set)[0].grid
        key = seed_of("student views", asked.seed)
        views = Views(asked.recipe, len(images), key, self.device, grid=grid)
        _, first = segments(label_pass, self.store, steps)
        if first >= steps:
            yield Said(label_pass.id)
            return
        missing = list(spans(first, steps, len(images), views.batch_size))
        rendered = (views.render(images, step).images for step in views.steps(first, steps))
        inputs = (TensorInputs(loaded.of_students(view)) for view in rendered)
        said = loaded.teacher.in_turn(inputs, (rows for _, _, rows in missing))
        for (start, stop, _), (logits, seconds) in zip(missing, said, strict=True):
            size = _size(logits, label_pass)
            segment = segment_name(label_pass, start), stop
            yield Said(label_pass.id, logits, loaded.test_acc, seconds, size, segment, last=stop == steps)

    def _count(self, name: str) -> int:
        """Images of a compressed set, without reading them."""
        if (held := self._sets.held(name)) is not None:
            return len(held[0])
        return CompressedSet.count(get(self.store, "set", name).folder)

    def _teacher_inputs(self, loaded: Loaded, name: str) -> Inputs:
        """As `label_inputs`; a large set stays pixels until a batch is made, where that changes no bit."""
        compressed, _ = self.compressed_set(name)
        small = compressed.images.size * torch.float32.itemsize <= WHOLE_BYTES
        if small or compressed.space != "pixel" or self.dataset.whitening is not None:
            return TensorInputs(self.label_inputs(loaded, name))
        return PixelInputs(torch.from_numpy(compressed.images).to(self.device), loaded.inputs)

    def label_inputs(self, loaded: Loaded, name: str) -> Tensor:
        """A compressed set as the inputs [N, C, H, W] float32 that a teacher expects, on the device."""
        compressed, _ = self.compressed_set(name)
        if compressed.space != "pixel":
            return loaded.of_students(self.set_inputs(name))
        return loaded.inputs(torch.from_numpy(compressed.images).to(self.device))

    def logits(self, passes: tuple[LabelPass, ...]) -> tuple[Tensor, list[Artifact]]:
        """Logits [K, N, C] float32 of K label passes over one set, and their artifacts."""
        artifacts = []
        for label_pass in passes:
            self._await(label_pass)
            artifacts.append(get(self.store, "logits", label_pass.id))
        rows, classes = self._count(passes[0].compressed_set), self.dataset.classes
        return self._logits.get(
            tuple(p.id for p in passes),
            lambda: torch.from_numpy(read_together((a.folder for a in artifacts), rows, classes)),
        ), artifacts

    def view_logits(
        self, passes: tuple[LabelPass, ...], images: int, steps: int
    ) -> tuple[ViewLogits, list[Artifact]]:
        """Logits of the first `steps` views of one set by K passes, and their artifacts."""
        tables = []
        for label_pass in passes:
            self._await(label_pass)
            artifacts, stop = segments(label_pass, self.store, steps)
            if stop < steps:
                raise ArtifactError(f"the labels {label_pass.id} end at step {stop} of {steps}")
            tables.append(artifacts)
        assert passes[0].views is not None
        batch_size = passes[0].views.recipe.batch_size
        # Students of one table share it, and its copy on a GPU.
        held = self._view_logits.get(
            (tuple(p.id for p in passes), steps),
            lambda: ViewLogits(tables, images, batch_size, steps, self.dataset.classes),
        )
        return held, [a for table in tables for a in table]

    def unchanged_labels(self, evaluation: Evaluation) -> None:
        """Raise `ArtifactError` if the labels at `labels.path` are not those of the plan any more."""
        path, expected = str(evaluation.point["labels.path"]), evaluation.files("labels")["path"]

        def check() -> bool:
            check_unchanged(path, expected)
            return True

        self._unchanged.get((path, expected), check)

    def replayed(self, evaluation: Evaluation, images: int) -> Replayed | None:
        """The views of others that the student of `evaluation` meets, if it meets any.

        `InputError` if they do not fit.
        """
        if not evaluation.replays_views:
            return None
        path, seed = str(evaluation.point["labels.path"]), int(evaluation.point["labels.order_seed"])
        found = self._replayed.get(
            (path, images, seed),
            lambda: Replayed(path, images, self.dataset.classes, self.dataset.resolution, seed),
        )
        found.check(evaluation.recipe, evaluation.keep_views)
        return found

    def learn_labels(self, planned: Planned) -> None:
        """Learn the labels of `planned`, unless they are in the store already.

        What waits for them (set, logits) must be in the store. A learning that was interrupted goes on from
        its last saved step.
        """
        name = planned.learned
        assert name is not None
        if not self.store.sound("learned", name):
            given = planned.evaluation.block("labels")
            learn_stored(
                self._lesson(planned.compressed_set, planned.evaluation, name),
                Course(**{f.name: given[f.name] for f in fields(Course)}),
                self._first_labels(planned, given).to(self.device),
                self.store,
            )

    def _lesson(self, compressed_set: str, evaluation: Evaluation, name: str) -> Lesson:
        data = self.dataset

        def fresh(step: int) -> nn.Module:
            shape = (data.channels, data.classes, data.resolution)
            return initialised(evaluation.arch, *shape, f"lesson {name}", step).to(self.device)

        inputs, classes = self.train
        grid = self.compressed_set(compressed_set)[0].grid
        images = self.set_inputs(compressed_set)
        return Lesson(images, inputs, classes, evaluation.recipe, fresh, name, grid)

    def _first_labels(self, planned: Planned, given: Mapping[str, Value]) -> Tensor:
        """Labels [N, C] at which learning begins: a teacher's, or one-hot classes."""
        if planned.passes:
            logits, _ = self.logits(planned.passes)
            return transforms.soften(transforms.ensemble(logits), float(given["temperature"]))
        labels = torch.from_numpy(self.compressed_set(planned.compressed_set)[0].labels)
        return nn.functional.one_hot(labels, self.dataset.classes).float()

    def learned(self, name: str, images: int | None = None) -> tuple[Tensor, Artifact]:
        """Learned labels [N, C] float32, and their artifact; `images`: N, where it is known."""
        artifact = get(self.store, "learned", name)
        labels = read_logits(artifact.folder, images, self.dataset.classes)
        return torch.from_numpy(np.array(labels)), artifact

    def _await(self, label_pass: LabelPass) -> None:
        if not labelled(label_pass, self.store):
            self.labeller.ensure(label_pass)

    # --- students -----------------------------------------------------------------------------

    def chassis(self, arch: str) -> Chassis:
        """The network that students of `arch` are trained in, one after the other."""
        data = self.dataset
        return self._chassis.get(
            arch, lambda: Chassis(arch, data.channels, data.classes, data.resolution, self.device)
        )

    def students_at_once(self, evaluation: Evaluation) -> int:
        """Students like that of `evaluation` that fit into the device's free memory."""
        chassis, recipe = self.chassis(evaluation.arch), evaluation.recipe
        images = set_size(evaluation, self.dataset.classes)
        free, _ = torch.cuda.mem_get_info(self.device)
        # What this process has freed, but keeps, is free for it.
        free += torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        batch = min(recipe.batch_size, images)
        steps = recipe.distinct_steps(images, evaluation.keep_views) if evaluation.labels_views else 1
        table = steps * batch * self.dataset.classes
        # Logits and probabilities; tables that are too large for that are read as they are met.
        labels = 2 * table if table * 4 <= RESIDENT_BYTES else 0
        return students_that_fit(chassis.network, batch, chassis.shape, free, labels)

    def road(self, arch: str, members: Sequence[Member], pool: int | None, to_come: int = 0) -> str:
        """The fastest road for such a pack on the device, measured when its shape is first met.

        to_come: students of this shape that are to be trained, these among them.
        """
        recipe, images = members[0].recipe, len(members[0].inputs)
        batch, total = min(recipe.batch_size, images), recipe.total_steps(images)
        # Lengths by powers of two: what is a little longer runs alike.
        shape = (arch, batch, recipe.precision, recipe.optimizer, len(members), total.bit_length())
        if shape not in self._roads:
            network = self.chassis(arch).network
            self._roads[shape] = fastest_road(network, members, self.device, pool, to_come)
        return self._roads[shape]

    def test_engine(self, arch: str, precision: str, passes: float) -> str:
        """How so many test passes of `arch` are executed: compiled, where they take long without."""
        if not passes or self.device.type == "cpu" or compiler() is None:
            return EAGER
        key = (arch, precision)
        if key not in self._test_seconds:
            network = self.chassis(arch).network
            for _ in range(2):  # the first one also decides how convolutions are made
                start = time.perf_counter()
                measure(network, *self.test, self.dataset.classes, precision)
                self._test_seconds[key] = time.perf_counter() - start
        return COMPILED if worth_compiling(self._test_seconds[key], passes) else EAGER

    # --- splits -------------------------------------------------------------------------------

    @cached_property
    def train(self) -> tuple[Inputs, Tensor]:
        """The train part as (inputs, labels) on the device."""
        labels = torch.from_numpy(self.dataset.train.labels).to(self.device)
        return part_inputs(self.dataset, self.dataset.train, self.device), labels

    @cached_property
    def test(self) -> tuple[Inputs, Tensor]:
        """The test split as (inputs, labels) on the device."""
        labels = torch.from_numpy(self.dataset.test.labels).to(self.device)
        return part_inputs(self.dataset, self.dataset.test, self.device), labels

    @cached_property
    def val(self) -> tuple[Inputs, Tensor] | None:
        """The validation part as (inputs, labels) on the device, if there is one."""
        if self.dataset.val is None:
            return None
        labels = torch.from_numpy(self.dataset.val.labels).to(self.device)
        return part_inputs(self.dataset, self.dataset.val, self.device), labels


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
