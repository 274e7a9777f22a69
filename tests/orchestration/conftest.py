"""What the tests of searches and of the label service share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.conftest import DIGITS

if TYPE_CHECKING:
    from raydc.data.dataset import Dataset
    from raydc.orchestration.worker_context import WorkerContext
    from raydc.spec.plan import Plan
    from raydc.spec.study import StudySpec
    from raydc.store.local import LocalStore


@pytest.fixture
def context(digits: Dataset, store: LocalStore) -> WorkerContext:
    from raydc.orchestration.worker_context import WorkerContext

    return WorkerContext(DIGITS, digits.cache, store.uri)


@pytest.fixture
def plan(small: Callable[..., StudySpec], unlabelled: Callable[[StudySpec], Plan]) -> Plan:
    """Twelve sets to be labelled by two checkpoints."""
    grid = "grid={images.ipc: [1, 2], labels.teacher_epoch: [1, 2]}"
    return unlabelled(small("base.labels={kind: soft}", "seeds=6", grid))
