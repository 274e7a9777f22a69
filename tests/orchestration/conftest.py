"""What the tests of searches and of the label service share."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from raydc.data.dataset import Dataset
from raydc.orchestration.worker_context import WorkerContext
from raydc.spec.plan import Plan
from raydc.spec.study import StudySpec
from raydc.store.local import LocalStore
from raydc.worker.making import make as make_work
from raydc.worker.planned_work import work_of
from raydc.worker.workbench import Workbench
from tests.conftest import DIGITS


@pytest.fixture
def context(digits: Dataset, store: LocalStore) -> WorkerContext:
    return WorkerContext(DIGITS, digits.cache, store.uri)


@pytest.fixture
def unlabelled(planned: Callable[[StudySpec], Plan], bench: Workbench) -> Callable[[StudySpec], Plan]:
    """The plan of a study, with everything made but its labels."""

    def make(study: StudySpec) -> Plan:
        made = planned(study)
        for work in work_of(made, bench.dataset.classes):
            if work.label_pass is None:
                make_work(work, bench)
        for name in bench.store.names("logits"):
            bench.store.remove("logits", name)
        return made

    return make


@pytest.fixture
def plan(small: Callable[..., StudySpec], unlabelled: Callable[[StudySpec], Plan]) -> Plan:
    """Twelve sets to be labelled by two checkpoints."""
    grid = "grid={images.ipc: [1, 2], labels.teacher_epoch: [1, 2]}"
    return unlabelled(small("base.labels={kind: soft}", "seeds=6", grid))
