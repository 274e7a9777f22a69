"""How fast results come."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

RECENT_SECONDS = 600.0
"""What came before that says nothing of the pace, where there is more: students of a study differ."""


def per_minute(times: Sequence[float]) -> float | None:
    """Results a minute of late, from the seconds at which they came, in order; None if these cannot say it.

    It is counted from the first results on, which had to wait for the start of their worker; a bundle of
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
