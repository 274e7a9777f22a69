"""The rate of results."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

RECENT_SECONDS = 600.0
"""Older results are ignored if there are newer ones, because students of a study differ."""


def per_minute(times: Sequence[float]) -> float | None:
    """Recent results per minute, from their sorted times in seconds; None if there are too few.

    The time before the first results, which includes the start of their worker, does not count; a bundle of
    students ends at one time.
    """
    last_together = bisect_left(times, times[-1]) if times else 0
    if not last_together:
        return None
    first = times[min(bisect_right(times, times[-1] - RECENT_SECONDS), last_together - 1)]
    return 60 * (len(times) - bisect_right(times, first)) / (times[-1] - first)


def rate(per_minute: float) -> str:
    """`1,234`, `40` or `0.21`."""
    return f"{per_minute:,.0f}" if per_minute >= 10 else f"{per_minute:.2g}"
