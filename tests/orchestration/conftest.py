"""What the tests of searches and of the label service share."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from raydc.data.dataset import Dataset
from raydc.orchestration.site import Site
from raydc.spec.plan import Plan
from raydc.spec.study import Study
from raydc.store.local import LocalStore
from raydc.worker.workbench import Workbench
from tests.conftest import DIGITS


@pytest.fixture
def site(digits: Dataset, store: LocalStore) -> Site:
    return Site(DIGITS, digits.cache, store.uri)


@pytest.fixture
def unlabelled(planned: Callable[[Study], Plan], bench: Workbench) -> Callable[[Study], Plan]:
    """The plan of a study, with everything made but its labels."""

    def make(study: Study) -> Plan:
        made = planned(study)
        for trajectory in made.trajectories.values():
            bench.make_trajectory(trajectory)
        for job in made.sets.values():
            bench.make_set(job)
        for name in bench.store.names("logits"):
            bench.store.remove("logits", name)
        return made

    return make


@pytest.fixture
def plan(small: Callable[..., Study], unlabelled: Callable[[Study], Plan]) -> Plan:
    """Twelve sets to be labelled by two checkpoints."""
    grid = "grid={images.ipc: [1, 2], labels.teacher_epoch: [1, 2]}"
    return unlabelled(small("base.labels={kind: soft}", "seeds=6", grid))
