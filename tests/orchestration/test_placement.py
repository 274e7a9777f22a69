"""Where teachers go: on all GPUs, with a student beside them."""

from __future__ import annotations

import pytest
import ray

from raydc.orchestration.materials import TEACHERS_SHARE, teacher_share
from raydc.orchestration.teacher_actor import only_free


@ray.remote(num_cpus=0)
class OnGpu:
    """Stands for a teacher or a student; Ray counts GPUs that are not there as well."""

    def gpu(self) -> int:
        (found,) = ray.get_gpu_ids()
        return int(found)


@pytest.mark.ray
@pytest.mark.parametrize(("teachers", "on_each"), [(2, [1, 1]), (3, [1, 2])])
def test_teachers_that_stay_are_on_all_gpus_with_a_student_beside_them(
    teachers: int, on_each: list[int]
) -> None:
    ray.init("local", num_cpus=1, num_gpus=2, object_store_memory=100 << 20, include_dashboard=False)
    try:
        with only_free(TEACHERS_SHARE, 2):
            staying = [OnGpu.options(num_gpus=teacher_share(teachers, 2)).remote() for _ in range(teachers)]
            on = ray.get([teacher.gpu.remote() for teacher in staying], timeout=60)
        assert sorted(on.count(gpu) for gpu in range(2)) == on_each
        students = [OnGpu.options(num_gpus=1 - TEACHERS_SHARE).remote() for _ in range(2)]
        assert sorted(ray.get([student.gpu.remote() for student in students], timeout=60)) == [0, 1]
    finally:
        ray.shutdown()


def test_shares_are_what_ray_counts_in() -> None:
    assert teacher_share(1, 0) == 0.0
    assert [teacher_share(n, 2) for n in (1, 2, 3, 6)] == [0.05, 0.05, 0.025, 0.0166]
