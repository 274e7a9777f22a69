"""The workbench: makes and holds what evaluations need, each thing once.

One workbench serves one dataset on one device. What it makes goes to the store, what it reads comes
from there, and small things stay in memory between evaluations. Neither Ray nor MLflow is here: a
cluster runs many workbenches on one store.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from raydc.augmentation.views import Views
from raydc.compress import Compressor
from raydc.data.dataset import Dataset
from raydc.data.image_set import CompressedSet
from raydc.errors import ArtifactError
from raydc.labels import transforms
from raydc.labels.learned import Course, Lesson
from raydc.labels.learning import learn_stored
from raydc.labels.replayed import Replayed
from raydc.labels.store import read_logits, write_logits
from raydc.labels.views import RESIDENT_BYTES, SEGMENT_ROWS, ViewLogits, segment_name, segments
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
from raydc.training.inputs import Inputs, TensorInputs, part_inputs
from raydc.training.metrics import measure
from raydc.training.packed import Member
from raydc.training.roads import fastest_road, students_that_fit, worth_compiling

T = TypeVar("T")
VIEWS_TOGETHER = 1024
"""Images of views that are rendered before they are forwarded."""


class Recent:
    """The most recently used values, up to `size` of them."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value of `key`, made now if it is not held."""
        if key not in self._values:
            self._values[key] = make()
            while len(self._values) > self._size:
                self._values.popitem(last=False)
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
    """What a checkpoint said of a compressed set."""

    name: str
    """Of the label pass."""
    images: int
    """That were forwarded for it."""
    logits: Tensor | None = None
    """[N, C] float32 on the CPU, to be stored; None for views."""
    teacher_test_acc: float | None = None
    seconds: float = 0.0


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
        self._sets = Recent(64)
        self._teachers = Recent(8)
        self._inputs = Recent(16)
        self._logits = Recent(16)
        self._view_logits = Recent(8)
        self._replayed = Recent(4)
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
            (said,) = self.say([label_pass])
            self.keep(said)

    def say(self, label_passes: list[LabelPass]) -> list[Said]:
        """Have one checkpoint label several sets; images of different sets share batches.

        All passes must be of one checkpoint. What was said is in the store after `keep`.
        """
        first = label_passes[0]
        assert all((p.trajectory, p.epoch) == (first.trajectory, first.epoch) for p in label_passes)
        images = [p for p in label_passes if p.views is None]
        said = self._label_images(images) if images else {}
        said |= {p.id: self._label_views(p, p.views) for p in label_passes if p.views is not None}
        self.images_forwarded += sum(one.images for one in said.values())
        return [said[p.id] for p in label_passes]

    def keep(self, said: Said) -> None:
        """Store what a checkpoint said of a set; views are stored while they are labelled."""
        if said.logits is None:
            return
        with self.store.draft("logits") as draft:
            write_logits(draft.folder, said.logits.numpy())
            draft.commit(
                said.name, images=said.images, teacher_test_acc=said.teacher_test_acc, seconds=said.seconds
            )

    def _label_images(self, label_passes: list[LabelPass]) -> dict[str, Said]:
        first = label_passes[0]
        start = time.perf_counter()
        loaded = self.teacher(first)
        images = [self.label_inputs(loaded, p.compressed_set) for p in label_passes]
        logits = loaded.teacher.logits(TensorInputs(torch.cat(images)))
        counts = [len(part) for part in images]
        seconds = time.perf_counter() - start
        part = seconds / max(1, sum(counts))
        return {
            p.id: Said(p.id, len(said), said, loaded.test_acc, part * len(said))
            for p, said in zip(label_passes, logits.split(counts), strict=True)
        }

    def _label_views(self, label_pass: LabelPass, asked: ViewsAsked) -> Said:
        """Label what is missing of a pass over views, a segment at a time."""
        loaded = self.teacher(label_pass)
        images = self.set_inputs(label_pass.compressed_set)
        steps = asked.steps(len(images))
        grid = self.compressed_set(label_pass.compressed_set)[0].grid
        key = seed_of("student views", asked.seed)
        views = Views(asked.recipe, len(images), key, self.device, grid=grid)
        _, first = segments(label_pass, self.store, steps)
        forwarded = 0
        together = max(1, -(-VIEWS_TOGETHER // views.batch_size))
        while first < steps:
            start = time.perf_counter()
            said: list[Tensor] = []
            step = first
            while step < steps and sum(len(part) for part in said) < SEGMENT_ROWS:
                stop = min(step + together, steps)
                rendered = [views.render(images, s).images for s in views.steps(step, stop)]
                said.append(loaded.teacher.logits(TensorInputs(loaded.of_students(torch.cat(rendered)))))
                step = stop
            logits = torch.cat(said)
            with self.store.draft("logits") as draft:
                write_logits(draft.folder, logits.numpy())
                draft.commit(
                    segment_name(label_pass, first),
                    images=len(logits),
                    stop=step,
                    teacher_test_acc=loaded.test_acc,
                    seconds=time.perf_counter() - start,
                )
            forwarded += len(logits)
            first = step
        return Said(label_pass.id, forwarded)

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
        return self._logits.get(
            tuple(p.id for p in passes),
            lambda: torch.from_numpy(np.stack([read_logits(a.folder) for a in artifacts])),
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
            (tuple(p.id for p in passes), steps), lambda: ViewLogits(tables, images, batch_size, steps)
        )
        return held, [a for table in tables for a in table]

    def replayed(self, evaluation: Evaluation, images: int) -> Replayed | None:
        """The views of others that the student of `evaluation` meets, if it meets any.

        `InputError` if they do not fit.
        """
        if not evaluation.replays_views:
            return None
        path, seed = str(evaluation.point["labels.path"]), int(evaluation.point["labels.order_seed"])
        found = self._replayed.get(
            (path, images, seed), lambda: Replayed(path, images, self.dataset.classes, seed)
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

    def learned(self, name: str) -> tuple[Tensor, Artifact]:
        """Learned labels [N, C] float32, and their artifact."""
        artifact = get(self.store, "learned", name)
        return torch.from_numpy(np.array(read_logits(artifact.folder))), artifact

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
