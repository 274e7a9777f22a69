"""Teacher actors: batched, each pass forwarded once, back after a death."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import ray

from raydc import workbench
from raydc.data.dataset import Dataset
from raydc.errors import ArtifactError
from raydc.label_service import LabelService
from raydc.orchestration import labelling, routing
from raydc.orchestration.cluster import connected
from raydc.orchestration.labelling import label_all
from raydc.orchestration.routing import Staffing
from raydc.orchestration.site import Site, _bench
from raydc.orchestration.teacher_actor import TeacherPool
from raydc.spec.plan import Plan
from raydc.spec.study import Study
from raydc.spec.study_file import Resources
from raydc.store import LocalStore
from raydc.workbench import Workbench
from tests.conftest import DIGITS

SOFT = "base.labels={kind: soft}"


@pytest.fixture
def site(digits: Dataset, store: LocalStore) -> Site:
    return Site(DIGITS, digits.cache, store.uri)


@pytest.fixture
def plan(small: Callable[..., Study], planned: Callable[[Study], Plan], bench: Workbench) -> Plan:
    """Twelve sets labelled by two checkpoints, everything made but the labels."""
    study = small(SOFT, "seeds=6", "grid.images.ipc=[1, 2]", "grid.labels.teacher_epoch=[1, 2]")
    made = planned(study)
    for job in made.trajectories.values():
        bench.make_trajectory(job)
    for job in made.sets.values():
        bench.make_set(job)
    for name in made.passes:
        bench.store.remove("logits", name)
    return made


def test_requests_that_wait_together_are_forwarded_together_and_once(site: Site, plan: Plan) -> None:
    async def ask_for_all() -> tuple[LabelService, list[int]]:
        _bench.cache_clear()
        service = LabelService(site.bench())
        passes = list(plan.passes.values()) * 3  # three clients want the same
        return service, await asyncio.gather(*(service.label(p) for p in passes))

    service, counts = asyncio.run(ask_for_all())
    images = sum(10 * plan.sets[p.compressed_set].evaluation.ipc for p in plan.passes.values())
    assert len(plan.passes) == 24
    assert sum(counts) == images == service._bench.images_forwarded
    assert service.forwards <= 4


def test_a_pass_that_cannot_be_made_tells_its_clients_and_no_others(site: Site, plan: Plan) -> None:
    passes = list(plan.passes.values())
    bad = replace(passes[0], id="bad", compressed_set="nowhere", epoch=1)
    good = next(p for p in passes if p.epoch == 2)

    async def ask() -> list[object]:
        _bench.cache_clear()
        service = LabelService(site.bench())
        return await asyncio.gather(service.label(bad), service.label(good), return_exceptions=True)

    failed, done = asyncio.run(ask())
    assert "set/nowhere is not in the store" in str(failed)
    assert done in (10, 20)


def test_labels_that_cannot_be_written_are_told_and_others_are(
    site: Site, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = [p for p in plan.passes.values() if p.epoch == 1]
    write = workbench.write_logits
    written: list[str] = []

    def full(folder: Path, logits: np.ndarray) -> None:
        written.append(threading.current_thread().name)
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        write(folder, logits)

    async def ask() -> list[object]:
        _bench.cache_clear()
        service = LabelService(site.bench())
        return await asyncio.gather(*map(service.label, passes), return_exceptions=True)

    monkeypatch.setattr(workbench, "write_logits", full)
    said = asyncio.run(ask())
    assert len(written) == len(passes) == 12
    assert sum(isinstance(one, OSError) for one in said) == 1
    assert sum(isinstance(one, int) and one in (10, 20) for one in said) == 11
    assert len(set(written)) > 1  # the forward did not write


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with connected(None, Resources(workers=2)):
        yield


@pytest.mark.ray
def test_a_replica_that_is_killed_comes_back_and_loses_nothing(
    cluster: None, site: Site, plan: Plan, store: LocalStore
) -> None:
    pool = TeacherPool.start(site, 2, {"num_cpus": 0, "max_concurrency": 100})
    ray.get([replica.ready.remote() for replica in pool.replicas])
    asked = [pool.ask(label_pass) for label_pass in plan.passes.values()]
    pids = [ray.get(replica.pid.remote()) for replica in pool.replicas]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    time.sleep(0.1)
    ray.get(asked, timeout=120)
    fresh = LocalStore(store.root)
    assert all(fresh.find("logits", name) is not None for name in plan.passes)
    assert set(pids).isdisjoint(ray.get(replica.pid.remote()) for replica in pool.replicas)
    one = next(iter(plan.passes.values()))
    assert ray.get(pool.ask(one)) == 0
    # A student that asks gets the teacher's own error, by which it is known what to mend.
    with pytest.raises(ArtifactError, match="set/nowhere is not in the store"):
        pool.ensure(replace(one, id="bad", compressed_set="nowhere"))
    pool.stop()


def test_a_client_that_goes_away_harms_nobody(site: Site, plan: Plan) -> None:
    passes = list(plan.passes.values())

    async def ask() -> list[int]:
        _bench.cache_clear()
        service = LabelService(site.bench())
        leaving = asyncio.create_task(service.label(passes[0]))
        staying = [asyncio.create_task(service.label(p)) for p in passes]
        await asyncio.sleep(0)
        leaving.cancel()
        return await asyncio.wait_for(asyncio.gather(*staying), 60)

    counts = asyncio.run(ask())
    assert sum(counts) <= sum(10 * plan.sets[p.compressed_set].evaluation.ipc for p in passes)
    assert all(LocalStore(site.bench().store.root).find("logits", p.id) is not None for p in passes)


@pytest.mark.ray
def test_a_replica_comes_while_there_is_much_to_label_and_goes_at_the_end(
    cluster: None, site: Site, plan: Plan, store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routing, "CROWD", 2)
    monkeypatch.setattr(routing, "CROWDED_SECONDS", 0.0)
    monkeypatch.setattr(labelling, "OPEN_PASSES", 1)
    common = {"num_cpus": 0, "max_concurrency": 100}
    pool = TeacherPool.start(site, 1, common, {**common, "num_cpus": 1, "scheduling_strategy": "SPREAD"})
    first = ray.get(pool.replicas[0].pid.remote())
    served: dict[str, int] = {}
    sizes, real = [], pool.staff

    def patient(wanted: int) -> bool:
        """Wait for a replica that is starting: the passes of this test take less time than that."""
        sizes.append(wanted)
        changed = real(wanted)
        if pool._coming:
            ray.wait([ready for _, ready in pool._coming], timeout=120)
        return changed

    monkeypatch.setattr(pool, "staff", patient)
    for label_pass, outcome in label_all(plan.passes.values(), pool, Staffing(1, 2)):
        assert isinstance(outcome, int)
        assert outcome > 0
        served[label_pass.id] = pool.serves(label_pass)
        if len(pool.replicas) == 2:
            second = ray.get(pool.replicas[1].pid.remote())
    assert set(served) == set(plan.passes)
    assert set(served.values()) <= {0, 1}
    assert max(sizes) == 2
    assert second != first
    assert all(LocalStore(store.root).find("logits", name) is not None for name in plan.passes)
    # Those that stay are the same; the other has gone.
    assert (len(pool.replicas), pool.size) == (1, 1)
    assert ray.get(pool.replicas[0].pid.remote()) == first
    deadline = time.monotonic() + 60
    while Path(f"/proc/{second}").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not Path(f"/proc/{second}").exists()
    pool.stop()
