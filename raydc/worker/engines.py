"""How the students of one dataset are executed on this device: networks, pack sizes, kernels, test passes."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

from raydc.data.dataset import Dataset
from raydc.labels.views import RESIDENT_BYTES
from raydc.spec.evaluation import Evaluation
from raydc.spec.plan import set_size
from raydc.training.compiling import compiler
from raydc.training.engine import COMPILED, EAGER, NetworkSlot
from raydc.training.inputs import Inputs
from raydc.training.kernels import fastest_kernel, students_that_fit, worth_compiling
from raydc.training.metrics import measure
from raydc.training.packed import Member
from raydc.worker.lru_cache import LruCache


class StudentEngines:
    """Execution settings of the students on a device; each is measured when a shape is first used."""

    def __init__(
        self, dataset: Dataset, device: torch.device, test: Callable[[], tuple[Inputs, Tensor]]
    ) -> None:
        """test: the test split as (inputs, labels) on `device`."""
        self._dataset = dataset
        self._device = device
        self._test = test
        self._slots = LruCache(4)
        self._test_seconds: dict[tuple[str, str], float] = {}
        self._kernels: dict[Hashable, str] = {}

    def slot(self, arch: str) -> NetworkSlot:
        """The network that students of `arch` are trained in, one after the other."""
        data = self._dataset
        return self._slots.get(
            arch, lambda: NetworkSlot(arch, data.channels, data.classes, data.resolution, self._device)
        )

    def students_at_once(self, evaluation: Evaluation) -> int:
        """Number of students like that of `evaluation` that fit into the device's free memory."""
        slot, recipe = self.slot(evaluation.arch), evaluation.recipe
        images = set_size(evaluation, self._dataset.classes)
        free, _ = torch.cuda.mem_get_info(self._device)
        # Memory that this process has freed but still reserves is available to it.
        free += torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device)
        batch = min(recipe.batch_size, images)
        steps = recipe.distinct_steps(images, evaluation.keep_views) if evaluation.labels_views else 1
        table = steps * batch * self._dataset.classes
        # Logits and probabilities; larger tables are read batch by batch instead.
        labels = 2 * table if table * 4 <= RESIDENT_BYTES else 0
        return students_that_fit(slot.network, batch, slot.shape, free, labels)

    def kernel(self, arch: str, members: Sequence[Member], pool: int | None, to_come: int = 0) -> str:
        """The fastest kernel for such a pack on the device, measured when its shape is first used.

        to_come: number of students of this shape still to be trained, including these.
        """
        recipe, images = members[0].recipe, len(members[0].inputs)
        batch, total = min(recipe.batch_size, images), recipe.total_steps(images)
        # Lengths by powers of two: a slightly longer training runs the same way.
        shape = (arch, batch, recipe.precision, recipe.optimizer, len(members), total.bit_length())
        if shape not in self._kernels:
            network = self.slot(arch).network
            self._kernels[shape] = fastest_kernel(network, members, self._device, pool, to_come)
        return self._kernels[shape]

    def test_engine(self, arch: str, precision: str, passes: float) -> str:
        """The engine for `passes` test passes of `arch`: compiled if they are slow enough to be worth it."""
        if not passes or self._device.type == "cpu" or compiler() is None:
            return EAGER
        key = (arch, precision)
        if key not in self._test_seconds:
            network = self.slot(arch).network
            for _ in range(2):  # the first pass also selects the convolution algorithms
                start = time.perf_counter()
                measure(network, *self._test(), self._dataset.classes, precision)
                self._test_seconds[key] = time.perf_counter() - start
        return COMPILED if worth_compiling(self._test_seconds[key], passes) else EAGER
