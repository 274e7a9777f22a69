"""Tests of a student: those during its training, and the one after its last step."""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor

from raydc.errors import EvaluationError, StoppedError
from raydc.spec.result import Measured
from raydc.training.engine import NetworkSlot
from raydc.training.inputs import Inputs
from raydc.training.metrics import Score, measure
from raydc.worker.prepared import Prepared
from raydc.worker.workbench import Workbench


class Examiner:
    """Tests the student of one evaluation in a network slot, and records the time that this takes."""

    def __init__(self, prepared: Prepared, bench: Workbench, slot: NetworkSlot, engine: str) -> None:
        self._prepared = prepared
        self._bench = bench
        self._network = slot.network
        self._forward = slot.forward(engine)
        self._looks: list[float] = []
        self.seconds = 0.0

    def _score(self, inputs: Inputs, labels: Tensor) -> Score:
        precision = self._prepared.recipe.precision
        return measure(self._network, inputs, labels, self._bench.dataset.classes, precision, self._forward)

    def examine(self, epochs: int) -> None:
        """Run the tests due after `epochs` epochs; `StoppedError` if the pruner stops the student."""
        if self._prepared.tested_at(epochs):
            self.test()
        if self._prepared.pruned_at(epochs):
            self.prune(epochs)

    def prune(self, epochs: int) -> None:
        """Report the rung reached after `epochs` epochs; `StoppedError` if the pruner stops the student."""
        prepared, bench = self._prepared, self._bench
        origin, rung = prepared.planned.origin, prepared.rung(epochs)
        assert origin is not None
        assert bench.val is not None
        start = time.perf_counter()
        accuracy = self._score(*bench.val).accuracy
        self.seconds += time.perf_counter() - start
        if not bench.pruner.should_continue(origin.trial, rung, accuracy):
            images = len(prepared.inputs)
            done, total = (
                epochs * prepared.recipe.steps_per_epoch(images),
                prepared.recipe.total_steps(images),
            )
            raise StoppedError(f"after {done} of {total} steps, with val_acc {accuracy:.4f}")

    def test(self) -> None:
        """Test the network in its current state, for `test_acc_by_epoch` and its maximum."""
        start = time.perf_counter()
        self._looks.append(self._score(*self._bench.test).accuracy)
        self.seconds += time.perf_counter() - start

    def conclude(self, *, steps: int, train_seconds: float, setup_seconds: float, engine: str) -> Measured:
        """Test the trained network once and collect all measurements."""
        prepared, bench = self._prepared, self._bench
        start = time.perf_counter()
        val = self._score(*bench.val) if bench.val is not None else None
        test = self._score(*bench.test) if prepared.planned.tested else None
        train = self._score(prepared.inputs, prepared.classes)
        self.seconds += time.perf_counter() - start
        looks = self._looks if prepared.recipe.test_every else None
        seen, split = (test, "test") if test is not None else (val, "validation")
        if seen is not None and not math.isfinite(seen.loss):
            raise EvaluationError(f"the {split} loss is {seen.loss}; lower train.lr")
        return Measured(
            test_acc=None if test is None else test.accuracy,
            best_test_acc=None if test is None or looks is None else max([*looks, test.accuracy]),
            test_acc_by_epoch=None if test is None or looks is None else tuple(looks),
            val_acc=None if val is None else val.accuracy,
            test_loss=None if test is None else test.loss,
            train_acc=train.accuracy,
            test_acc_by_class=None if test is None else test.accuracy_by_class,
            teacher_test_acc=prepared.labels.cost.teacher_test_acc,
            images_bytes=prepared.images_bytes,
            labels_bytes=prepared.labels.labels_bytes,
            steps=steps,
            train_seconds=train_seconds,
            setup_seconds=setup_seconds,
            wait_seconds=prepared.labels.cost.wait_seconds,
            test_seconds=self.seconds,
            labels_seconds=prepared.labels.cost.seconds,
            images_seconds=prepared.images_seconds,
            device=device_name(bench.device),
            engine=engine,
        )


def device_name(device: torch.device) -> str:
    """`cpu`, or the name of the GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
