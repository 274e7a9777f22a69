"""Teacher actors: back after a death, as many as there is work for."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import ray

from raydc.errors import ArtifactError
from raydc.orchestration import labelling, routing
from raydc.orchestration.labelling import label_all
from raydc.orchestration.routing import Autoscaler
from raydc.orchestration.teacher_actor import TeacherPool
from raydc.orchestration.worker_context import WorkerContext
from raydc.spec.plan import Plan
from raydc.store.local import LocalStore


def test_a_replica_that_is_killed_comes_back_and_loses_nothing(
    ray_cluster: object, context: WorkerContext, plan: Plan, store: LocalStore
) -> None:
    pool = TeacherPool.start(context, 2, {"num_cpus": 0, "max_concurrency": 100})
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


def test_a_replica_comes_while_there_is_much_to_label_and_goes_at_the_end(
    ray_cluster: object,
    context: WorkerContext,
    plan: Plan,
    store: LocalStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(routing, "QUEUE_PER_REPLICA", 2)
    monkeypatch.setattr(routing, "SCALE_UP_SECONDS", 0.0)
    monkeypatch.setattr(labelling, "OPEN_PASSES", 1)
    common = {"num_cpus": 0, "max_concurrency": 100}
    pool = TeacherPool.start(context, 1, common, {**common, "num_cpus": 1, "scheduling_strategy": "SPREAD"})
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
    for label_pass, outcome in label_all(plan.passes.values(), pool, Autoscaler(1, 2)):
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
