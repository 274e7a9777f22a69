"""How much a file from others may unfold to: a few bytes can declare a terabyte."""

from __future__ import annotations

from pathlib import Path

MOST_TIMES_THE_FILE = 100
"""A column or an array may unfold to so many times the bytes of its file."""
ALWAYS_READ_BYTES = 64 << 20
"""So much is read however well it is compressed."""


def most_bytes(file: Path) -> int:
    """Bytes to which one column or array of `file` may unfold."""
    return max(ALWAYS_READ_BYTES, MOST_TIMES_THE_FILE * file.stat().st_size)
