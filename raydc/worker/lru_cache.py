"""A cache of the most recently used values, limited in number and bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")
HELD_BYTES = 2 << 30
"""Bytes that the values of one `LruCache` take together; more only if one alone is larger."""


class LruCache:
    """The most recently used values, up to `size` of them.

    nbytes: size of a value; together they take at most HELD_BYTES, unless the last one alone takes more.
    """

    def __init__(self, size: int, nbytes: Callable[[Any], int] = lambda value: 0) -> None:
        self._size = size
        self._nbytes = nbytes
        self._values: OrderedDict[Hashable, Any] = OrderedDict()

    def held(self, key: Hashable) -> Any | None:
        """The value of `key`, or None if it is not in the cache."""
        return self._values.get(key)

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value of `key`, made now if it is not in the cache."""
        if key not in self._values:
            self._values[key] = make()
            taken = sum(map(self._nbytes, self._values.values()))
            while len(self._values) > 1 and (len(self._values) > self._size or taken > HELD_BYTES):
                taken -= self._nbytes(self._values.popitem(last=False)[1])
        self._values.move_to_end(key)
        value: T = self._values[key]
        return value
