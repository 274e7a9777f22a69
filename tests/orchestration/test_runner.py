"""What Ray is asked for, so that as many students run at once as the study says."""

from __future__ import annotations

import pytest

from raydc.orchestration.cluster import Capacity
from raydc.orchestration.runner import student_request
from raydc.spec.study_file import Resources


@pytest.mark.parametrize(
    ("nodes", "workers", "threads"),
    [([2], 1, 1), ([2], 2, 1), ([8], 3, 1), ([8], 2, 4), ([4, 4], 8, 1), ([4, 4], 2, 1), ([4, 4], 2, 2)],
)
def test_no_more_students_run_at_once_than_workers(nodes: list[int], workers: int, threads: int) -> None:
    capacity = Capacity(sum(nodes), max(nodes), 0.0, workers)
    asked = student_request(Resources(workers=workers, threads=threads), capacity)["cpu"]
    assert asked >= threads
    assert sum(int(cpus / asked) for cpus in nodes) == workers


def test_students_on_gpus_take_their_share() -> None:
    asked = student_request(Resources(gpu_share=0.5), Capacity(16, 16, 2.0, 4))
    assert asked["cpu"] == 1
    assert 0 < asked["gpu"] <= 0.5
