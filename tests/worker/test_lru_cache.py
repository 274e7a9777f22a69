"""Values that were used last are held, as long as they are not too much."""

from __future__ import annotations

import pytest

from raydc.worker import lru_cache
from raydc.worker.lru_cache import LruCache


def test_values_are_held_by_number_and_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lru_cache, "HELD_BYTES", 10)
    made: list[int] = []

    def get(held: LruCache, size: int) -> None:
        assert held.get(size, lambda: made.append(size) or size) == size

    few, light = LruCache(2), LruCache(9, lambda value: value)
    for size in (4, 5, 4, 6, 4, 5):
        get(few, size)
    assert made == [4, 5, 6, 5]  # the least recently used goes
    made.clear()
    for size in (4, 5, 4, 5, 2, 5, 4):
        get(light, size)
    assert made == [4, 5, 2, 4]
    get(light, 11)  # more than all: it is held, alone
    get(light, 11)
    get(light, 2)
    assert made == [4, 5, 2, 4, 11, 2]
    assert light.held(11) is None
