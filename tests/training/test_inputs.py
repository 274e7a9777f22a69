"""Inputs of several sets in one stream of batches, of which one set at a time is in memory."""

from __future__ import annotations

import weakref
from collections.abc import Iterator

import pytest
import torch

from raydc.training.inputs import TensorInputs, spanning

IMAGES = torch.arange(30.0).view(30, 1, 1, 1)


@pytest.mark.parametrize("counts", [(30,), (10, 10, 10), (1, 2, 3, 24), (8, 16, 6), (29, 1)])
@pytest.mark.parametrize("size", [1, 7, 8, 64])
def test_batches_span_inputs_and_lose_nothing(counts: tuple[int, ...], size: int) -> None:
    got = list(spanning((TensorInputs(part) for part in IMAGES.split(counts)), size))
    assert torch.equal(torch.cat(got), IMAGES)
    assert [len(batch) for batch in got[:-1]] == [size] * (len(got) - 1)
    assert 0 < len(got[-1]) <= size


def test_inputs_are_made_when_a_batch_comes_to_them_and_gone_before_the_next_are() -> None:
    alive: list[weakref.ref[torch.Tensor]] = []

    def made() -> Iterator[TensorInputs]:
        for _ in range(4):
            assert not any(ref() is not None for ref in alive)
            images = torch.ones(10, 1, 1, 1)
            alive.append(weakref.ref(images))
            inputs = TensorInputs(images)
            del images
            yield inputs
            del inputs

    seen = 0
    for batch in spanning(made(), 4):
        seen += len(batch)
        assert len(alive) == -(-seen // 10)  # none is made before it is needed
        del batch
    assert (seen, len(alive)) == (40, 4)
