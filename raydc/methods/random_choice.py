"""random: `ipc` images of each class, uniformly and without replacement."""

from __future__ import annotations

from raydc.methods.pool import Pool, Rows


def select(pool: Pool) -> Rows:
    """Rows [ipc x classes], class by class."""
    return pool.by_class(lambda rows: pool.generator.permutation(rows)[: pool.ipc])
