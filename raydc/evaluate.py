"""One evaluation from end to end: the main path of raydc.

    compressed set + labels -> student -> trained by the recipe -> accuracy

Needs torch, torchvision, NumPy and pyarrow only. As a command it runs evaluations that
`raydc plan STUDY --export FILE` wrote, on a machine that has nothing else:

    python -m raydc.evaluate FILE --data DIR --out DIR
"""

from __future__ import annotations

import logging
import math
import runpy
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from raydc.augmentation.views import Views
from raydc.errors import EvaluationError, RaydcError, StoppedError
from raydc.labels.imported import read_soft_labels
from raydc.labels.kinds import LabelInputs, LabelOutputs
from raydc.labels.replayed import Replayed, ReplayedViews
from raydc.networks.zoo import initialised
from raydc.result import FAILED, FINISHED, STOPPED, Measured, Row, make_row
from raydc.seeding import seed_of
from raydc.spec import catalog
from raydc.spec.evaluation import Recipe
from raydc.spec.plan import Plan, Planned
from raydc.training.engine import Chassis
from raydc.training.fit import fit
from raydc.training.inputs import Inputs, TensorInputs
from raydc.training.memory import out_of_memory
from raydc.training.metrics import Score, measure
from raydc.workbench import Workbench

logger = logging.getLogger(__name__)

WHOSE = ("teacher", "teacher_epoch", "ensemble", "path", "order_seed", "keep_views")
"""Keys of `labels` that say whose labels are met, and which; the others say how."""
RUNGS, WHOLE = (1, 3, 9), 27
"""Where a scheduler looks at a student: after these parts of WHOLE of its steps."""


@dataclass(frozen=True)
class Prepared:
    """An evaluation with everything that its student needs, on the device."""

    planned: Planned
    inputs: TensorInputs
    """The compressed set as network inputs."""
    classes: Tensor
    """[N] int64, class of each image."""
    labels: LabelOutputs
    replayed: Replayed | None
    """Views of others, where the labels are theirs."""
    teacher_test_acc: float | None
    grid: tuple[int, int]
    """Rows and columns of tiles in an image."""
    images_bytes: int
    images_seconds: float
    labels_seconds: float
    wait_seconds: float
    setup_seconds: float
    """What this took, without waiting for labels."""

    @property
    def recipe(self) -> Recipe:
        return self.planned.evaluation.recipe

    @property
    def pool(self) -> int:
        """Views that differ."""
        return self.recipe.distinct_steps(len(self.inputs), self.planned.evaluation.keep_views)

    def views(self, device: torch.device) -> Views:
        """The views of the training."""
        if self.replayed is not None:
            return ReplayedViews(self.replayed, self.recipe, self.view_key, device, self.pool)
        return Views(self.recipe, len(self.inputs), self.view_key, device, self.pool, self.grid)

    @property
    def view_key(self) -> int:
        """Seed of the views."""
        return seed_of("student views", self.planned.evaluation.view_seed)

    @property
    def tests(self) -> int:
        """Test passes of the student, beside those of a scheduler."""
        if not self.planned.tested:
            return 0
        images, every = len(self.inputs), self.recipe.test_every
        epochs = self.recipe.total_steps(images) // self.recipe.steps_per_epoch(images)
        return 1 + (0 if every is None else epochs // every)

    @property
    def examined(self) -> bool:
        """Whether anybody may look at the student before its end."""
        return self.planned.judged or bool(self.planned.tested and self.recipe.test_every)

    def examined_at(self, epochs: int) -> bool:
        """Whether anybody looks after so many epochs."""
        return self.looked_at(epochs) or self.judged_at(epochs)

    def looked_at(self, epochs: int) -> bool:
        """Whether an extra test is due after so many epochs."""
        every = self.recipe.test_every
        return self.planned.tested and every is not None and epochs % every == 0

    def judged_at(self, epochs: int) -> bool:
        """Whether the scheduler looks after so many epochs: the first that reach a rung, but the last."""
        if not self.planned.judged or self.rung(epochs) == self.rung(epochs - 1):
            return False
        images = len(self.inputs)
        return epochs * self.recipe.steps_per_epoch(images) < self.recipe.total_steps(images)

    def rung(self, epochs: int) -> int:
        """The highest rung that so many epochs reach; 0 for none."""
        images = len(self.inputs)
        done, total = epochs * self.recipe.steps_per_epoch(images), self.recipe.total_steps(images)
        return max((rung for rung in RUNGS if WHOLE * done >= rung * total), default=0)


def prepare(planned: Planned, bench: Workbench) -> Prepared:
    """Take what `planned` waits for (compressed set, logits) from the bench's store.

    The compressed set of a point that a search asked for is made first, unless it is there. Raises
    `ArtifactError` if something is damaged, `EvaluationError` if it does not fit.
    """
    if planned.asked is not None:
        bench.make_set(planned.asked.set_job)
    began = time.perf_counter()
    compressed, made = bench.compressed_set(planned.compressed_set)
    inputs = TensorInputs(bench.set_inputs(planned.compressed_set))
    labels, waited, labels_seconds, teacher_test_acc = _labels(planned, bench)
    labels = replace(labels, source=labels.source.to(bench.device))
    return Prepared(
        planned=planned,
        inputs=inputs,
        classes=torch.from_numpy(compressed.labels).to(bench.device),
        labels=labels,
        replayed=bench.replayed(planned.evaluation, len(inputs)),
        teacher_test_acc=teacher_test_acc,
        grid=compressed.grid,
        images_bytes=compressed.images_bytes,
        images_seconds=made.meta["seconds"],
        labels_seconds=labels_seconds,
        wait_seconds=waited,
        setup_seconds=time.perf_counter() - began - waited,
    )


def new_student(planned: Planned, bench: Workbench) -> dict[str, Tensor]:
    """Initial weights and buffers of the student."""
    data, evaluation = bench.dataset, planned.evaluation
    network = initialised(
        evaluation.arch, data.channels, data.classes, data.resolution, "student", evaluation.seed
    )
    return network.state_dict()


class Examiner:
    """Tests students of one evaluation in a chassis; keeps the time that it takes."""

    def __init__(self, prepared: Prepared, bench: Workbench, chassis: Chassis, engine: str) -> None:
        self._prepared = prepared
        self._bench = bench
        self._network = chassis.network
        self._forward = chassis.forward(engine)
        self._looks: list[float] = []
        self.seconds = 0.0

    def _score(self, inputs: Inputs, labels: Tensor) -> Score:
        precision = self._prepared.recipe.precision
        return measure(self._network, inputs, labels, self._bench.dataset.classes, precision, self._forward)

    def examine(self, epochs: int) -> None:
        """What is due after so many epochs; `StoppedError` if the scheduler stops the student."""
        if self._prepared.looked_at(epochs):
            self.look()
        if self._prepared.judged_at(epochs):
            self.judge(epochs)

    def judge(self, epochs: int) -> None:
        """Let the scheduler look after so many epochs, which reach a rung; `StoppedError` if it stops."""
        prepared, bench = self._prepared, self._bench
        asked, rung = prepared.planned.asked, prepared.rung(epochs)
        assert asked is not None
        assert bench.val is not None
        start = time.perf_counter()
        accuracy = self._score(*bench.val).accuracy
        self.seconds += time.perf_counter() - start
        if not bench.judge.goes_on(asked.trial, rung, accuracy):
            images = len(prepared.inputs)
            done, total = (
                epochs * prepared.recipe.steps_per_epoch(images),
                prepared.recipe.total_steps(images),
            )
            raise StoppedError(f"after {done} of {total} steps, with val_acc {accuracy:.4f}")

    def look(self) -> None:
        """An extra test of the network as it is, for `test_acc_by_epoch` and its best."""
        start = time.perf_counter()
        self._looks.append(self._score(*self._bench.test).accuracy)
        self.seconds += time.perf_counter() - start

    def conclude(self, *, steps: int, train_seconds: float, setup_seconds: float, engine: str) -> Measured:
        """Test the trained network, once, and put everything that was measured together."""
        prepared, bench = self._prepared, self._bench
        start = time.perf_counter()
        val = self._score(*bench.val) if bench.val is not None else None
        test = self._score(*bench.test) if prepared.planned.tested else None
        train = self._score(prepared.inputs, prepared.classes)
        self.seconds += time.perf_counter() - start
        looks = self._looks if prepared.recipe.test_every else None
        seen, split = (test, "test") if test is not None else (val, "validation")
        if seen is not None and not math.isfinite(seen.loss):
            raise EvaluationError(f"the trained network says {seen.loss} of {split} images; lower train.lr")
        return Measured(
            test_acc=None if test is None else test.accuracy,
            best_test_acc=None if test is None or looks is None else max([*looks, test.accuracy]),
            test_acc_by_epoch=None if test is None or looks is None else tuple(looks),
            val_acc=None if val is None else val.accuracy,
            test_loss=None if test is None else test.loss,
            train_acc=train.accuracy,
            test_acc_by_class=None if test is None else test.accuracy_by_class,
            teacher_test_acc=prepared.teacher_test_acc,
            images_bytes=prepared.images_bytes,
            labels_bytes=prepared.labels.labels_bytes,
            steps=steps,
            train_seconds=train_seconds,
            setup_seconds=setup_seconds,
            wait_seconds=prepared.wait_seconds,
            test_seconds=self.seconds,
            labels_seconds=prepared.labels_seconds,
            images_seconds=prepared.images_seconds,
            device=device_name(bench.device),
            engine=engine,
        )


def evaluate(planned: Planned, bench: Workbench) -> Measured:
    """Train the student of `planned` and test it once, after its last step.

    What it waits for is taken from the bench's store. Raises `EvaluationError` if the student cannot
    be trained, such as when its loss is not finite, and `StoppedError` if a scheduler ends it early.
    """
    prepared = prepare(planned, bench)
    recipe = prepared.recipe
    began = time.perf_counter()
    chassis = bench.engines.chassis(planned.evaluation.arch)
    engine = chassis.engine(recipe, len(prepared.inputs))
    engine = chassis.warm(engine, recipe, len(prepared.inputs))
    chassis.load(new_student(planned, bench))
    examiner = Examiner(prepared, bench, chassis, engine)

    def on_epoch(epoch: int, network: nn.Module, optimizer: Optimizer) -> None:
        del network, optimizer
        examiner.examine(epoch)

    setup_seconds = prepared.setup_seconds + time.perf_counter() - began
    training = fit(
        chassis.network,
        prepared.inputs,
        prepared.labels.source,
        recipe,
        key=prepared.view_key,
        device=bench.device,
        on_epoch=on_epoch if prepared.examined else None,
        forward=chassis.forward(engine),
        views=prepared.views(bench.device),
    )
    return examiner.conclude(
        steps=training.steps,
        train_seconds=training.train_seconds,
        setup_seconds=setup_seconds,
        engine=engine,
    )


def _labels(planned: Planned, bench: Workbench) -> tuple[LabelOutputs, float, float, float | None]:
    """(targets, seconds waited for them, seconds they took to make, the teachers' test accuracy)."""
    evaluation = planned.evaluation
    compressed, _ = bench.compressed_set(planned.compressed_set)
    kind = catalog.LABELS[str(evaluation.point["labels.kind"])]
    given = evaluation.block("labels")
    names = {key.name.removeprefix("labels.") for key in kind.keys if not kind.learnt}
    keys = {n: v for n, v in given.items() if n in names and n not in WHOSE}
    brought = None if compressed.soft_labels is None else torch.from_numpy(compressed.soft_labels)
    inputs = LabelInputs(torch.from_numpy(compressed.labels), bench.dataset.classes, brought=brought)
    waited = made = 0.0
    accuracy = None
    if planned.learned is not None:
        bench.learn_labels(planned)  # a search asks for labels that nobody could make before
        labels, artifact = bench.learned(planned.learned, len(inputs.labels))
        return kind.load()(replace(inputs, brought=labels)), 0.0, float(artifact.noted("seconds")), None
    if "path" in given:
        bench.unchanged_labels(evaluation)
    if kind.brought and "path" in given:
        labels = read_soft_labels(str(given["path"]), len(compressed), inputs.classes)
        inputs = replace(inputs, brought=labels)
    if (replayed := bench.replayed(evaluation, len(compressed))) is not None:
        steps = evaluation.recipe.distinct_steps(len(compressed), evaluation.keep_views)
        inputs = replace(inputs, replayed=replayed, replayed_rows=replayed.rows(steps))
    if planned.passes:
        start = time.perf_counter()
        if kind.views:
            steps = evaluation.recipe.distinct_steps(len(inputs.labels), evaluation.keep_views)
            views, artifacts = bench.view_logits(planned.passes, len(inputs.labels), steps)
            inputs = replace(inputs, views=views)
        else:
            logits, artifacts = bench.logits(planned.passes)
            inputs = replace(inputs, logits=logits)
        waited = time.perf_counter() - start
        made = sum(float(artifact.noted("seconds")) for artifact in artifacts)
        known = [a for artifact in artifacts if (a := artifact.noted("teacher_test_acc")) is not None]
        accuracy = sum(known) / len(known) if known else None
    return kind.load()(inputs, **keys), waited, made, accuracy


def device_name(device: torch.device) -> str:
    """`cpu`, or the name of the GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def error_text(problem: Exception) -> str:
    """An error as a row says it; the traceback of one that nobody foresaw goes to the log."""
    if out_of_memory(problem):
        problem = EvaluationError(
            "the student does not fit into the device's memory alone; lower train.batch_size or "
            f"resources.gpu_share, or choose a smaller student.arch ({problem})"
        )
    elif not isinstance(problem, RaydcError):
        logger.exception("an evaluation failed")
    return one_line(problem)


def one_line(error: Exception) -> str:
    """The kind of an error and what it says, at most 2,000 characters."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:2000]


def attempt(planned: Planned, bench: Workbench, *, study: str, attempts: int = 1) -> Row:
    """`evaluate` as a row; an evaluation that cannot finish is a row with its error."""
    started, began = time.time(), time.monotonic()
    measured, error, status = None, None, FAILED
    try:
        measured, status = evaluate(planned, bench), FINISHED
    except StoppedError as stopped:
        error, status = error_text(stopped), STOPPED
    except Exception as problem:  # whatever it is, it is recorded and the others go on
        error = error_text(problem)
    return make_row(
        planned,
        study=study,
        dataset_id=bench.dataset.id,
        status=status,
        started_at=started,
        # Not a look at the clock, which may have been set meanwhile: the difference is a duration.
        finished_at=started + time.monotonic() - began,
        attempts=attempts,
        measured=measured,
        error=error,
    )


def make_everything(plan: Plan, bench: Workbench) -> dict[str, str]:
    """Make what the evaluations of `plan` wait for, in this process.

    Returns what could not be made (trajectory, set or label pass) with the reason; what waits for it
    is not tried.
    """
    broken: dict[str, str] = {}

    def make(name: str, needs: Iterable[str], work: Callable[[], None]) -> None:
        reason = next((broken[need] for need in needs if need in broken), None)
        if reason is not None:
            broken[name] = reason
            return
        try:
            work()
        except Exception as problem:
            broken[name] = error_text(problem)

    for trajectory in plan.trajectories.values():
        make(trajectory.id, (), partial(bench.make_trajectory, trajectory))
    for job in plan.sets.values():
        make(job.id, job.scorers, partial(bench.make_set, job))
    for label_pass in plan.passes.values():
        needs = (label_pass.trajectory, label_pass.compressed_set)
        make(label_pass.id, needs, partial(bench.ensure, label_pass))
    for name, planned in plan.learned.items():
        make(name, planned.materials, partial(bench.learn_labels, planned))
    return broken


if __name__ == "__main__":
    runpy.run_module("raydc.exported", run_name="__main__")
