"""The contract of schedules: fractions of the peak rate, as a pure function of the step."""

from __future__ import annotations

import math

import pytest

from raydc.spec.catalog import SCHEDULES, Schedule
from raydc.testing.parts import each
from raydc.testing.training import recipe_of
from raydc.training.schedules import rate_factor

every_schedule = each("schedule", SCHEDULES)


def factors(schedule: Schedule, steps: int) -> list[float]:
    recipe = recipe_of(schedule.keys, schedule=schedule.name, steps=steps)
    return [rate_factor(recipe, step, 12) for step in range(steps)]


@every_schedule
@pytest.mark.parametrize("steps", [1, 2, 7, 100])
def test_every_step_has_a_finite_fraction_of_the_peak(schedule: Schedule, steps: int) -> None:
    found = factors(schedule, steps)
    assert all(math.isfinite(factor) and 0 <= factor <= 1 for factor in found)
    assert max(found) > 0
    assert found == factors(schedule, steps)


@every_schedule
def test_the_rate_is_independent_of_the_length_if_declared(schedule: Schedule) -> None:
    same = factors(schedule, 100)[:50] == factors(schedule, 50)
    assert same or schedule.needs_length
