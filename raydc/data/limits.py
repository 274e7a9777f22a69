"""Limits on the decompressed size of third-party files: a few bytes can declare a terabyte."""

from __future__ import annotations

from pathlib import Path

MOST_TIMES_THE_FILE = 100
"""Largest decompressed size of a column or an array, as a multiple of the size of its file."""
ALWAYS_READ_BYTES = 64 << 20
"""Decompressed size that is always allowed."""


def most_bytes(file: Path) -> int:
    """Largest decompressed size in bytes of one column or array of `file`."""
    return max(ALWAYS_READ_BYTES, MOST_TIMES_THE_FILE * file.stat().st_size)
