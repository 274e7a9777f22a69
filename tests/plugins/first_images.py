"""A method: the first images of each class."""

from raydc.methods.pool import Pool, Rows
from raydc.spec.catalog import METHODS, Method


def select(pool: Pool) -> Rows:
    return pool.by_class(lambda rows: rows[: pool.ipc])


METHODS.add(Method("first-images", select, "the first images of each class"))
