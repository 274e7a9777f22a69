"""How fast results come."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

RECENT_SECONDS = 600.0
"""What came before that says nothing of the pace: students of a study differ."""


def per_minute(times: Sequence[float]) -> float | None:
    """Results a minute of late, from the seconds at which they came, in order; None if these cannot say it.

    It is counted from the first result on, which had to wait for the start of its worker.
    """
    if not times:
        return None
    first = bisect_right(times, times[-1] - RECENT_SECONDS)
    if times[-1] == times[first]:
        return None
    return 60 * (len(times) - first - 1) / (times[-1] - times[first])
