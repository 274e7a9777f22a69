"""Where teachers go: on all GPUs, with a student beside them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from raydc.orchestration.cluster import Capacity
from raydc.orchestration.prerequisites import TEACHERS_SHARE, teacher_share
from raydc.orchestration.runner import Runner
from raydc.orchestration.teacher_actor import only_free
from raydc.orchestration.worker_context import WorkerContext
from raydc.spec.study_file import Resources
from tests.conftest import DIGITS

GPUS = 2


@ray.remote(num_cpus=0)
class OnGpu:
    """Stands for a teacher or a student; Ray counts GPUs that are not there as well."""

    def gpu(self) -> int:
        (found,) = ray.get_gpu_ids()
        return int(found)


@pytest.fixture(scope="module")
def cluster(own_ray: None) -> Iterator[None]:
    ray.init("local", num_cpus=1, num_gpus=GPUS, object_store_memory=100 << 20, include_dashboard=False)
    yield
    ray.shutdown()


@pytest.fixture
def gpus(cluster: None) -> None:
    """Nobody uses them, also none of the test before."""
    deadline = time.monotonic() + 60
    while ray.available_resources().get("GPU") != GPUS:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def placed(count: int, share: float) -> tuple[list[Any], list[int]]:
    """Actors that take a share of a GPU, and the GPU of each."""
    actors = [OnGpu.options(num_gpus=share).remote() for _ in range(count)]
    return actors, ray.get([actor.gpu.remote() for actor in actors], timeout=60)


@pytest.mark.parametrize(("teachers", "on_each"), [(2, [1, 1]), (3, [1, 2])])
def test_small_shares_are_on_all_gpus_with_a_student_beside_them(
    gpus: None, teachers: int, on_each: list[int]
) -> None:
    with only_free(TEACHERS_SHARE, GPUS):
        staying, on = placed(teachers, teacher_share(teachers, GPUS))
    assert sorted(on.count(gpu) for gpu in range(GPUS)) == on_each
    _, beside = placed(GPUS, 1 - TEACHERS_SHARE)
    assert sorted(beside) == [0, 1]
    assert len(staying) == teachers


def test_the_teachers_of_a_run_leave_each_gpu_its_student(gpus: None) -> None:
    run: Any = SimpleNamespace(
        resources=Resources(teacher_replicas=2), context=WorkerContext(DIGITS, "pixels", "store")
    )
    pool = Runner._start_teachers(run, Capacity(1, 1, float(GPUS), GPUS))
    _, beside = placed(GPUS, 1 - TEACHERS_SHARE)
    assert sorted(beside) == [0, 1]
    assert pool.size == 2
    pool.stop()


def test_shares_are_what_ray_counts_in() -> None:
    assert teacher_share(1, 0) == 0.0
    assert [teacher_share(n, 2) for n in (1, 2, 3, 6)] == [0.05, 0.05, 0.025, 0.0166]
