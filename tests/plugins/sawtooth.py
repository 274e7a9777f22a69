"""A schedule: falls linearly to 0 and starts again, `train.teeth` times."""

from raydc.spec.catalog import SCHEDULES, Schedule
from raydc.spec.keys import Key, Whole

TEETH = Key("train.teeth", Whole(1), "how often the rate starts again", 2)


def sawtooth(step: int, total: int, teeth: int) -> float:
    return 1 - step * teeth % total / total


SCHEDULES.add(Schedule("sawtooth", sawtooth, "linear to 0, again and again", keys=(TEETH,)))
