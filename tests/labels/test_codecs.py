"""Codecs: what comes back, and that bytes are counted as they are stored."""

from __future__ import annotations

import pytest
import torch

from raydc.labels import codecs
from raydc.labels.kinds import LabelInputs, soft
from raydc.labels.transforms import fill_missing


def logits(count: int = 50, classes: int = 11) -> torch.Tensor:
    return torch.randn(count, classes, generator=torch.Generator().manual_seed(0)) * 5


@pytest.mark.parametrize("keep", [None, 1, 4, 11, 99])
@pytest.mark.parametrize("codec", codecs.NAMES)
def test_a_record_takes_the_bytes_that_are_counted(codec: str, keep: int | None) -> None:
    encoded = codecs.encode(logits(), codec, keep)
    expected = codecs.record_bytes(codec, 11, keep)
    assert encoded.nbytes == 50 * expected


def test_records_are_as_the_design_counts_them() -> None:
    sizes = [codecs.record_bytes(codec, 1000) for codec in ("fp32", "fp16", "q8", "q4")]
    assert sizes == [4000, 2000, 1004, 504]
    assert codecs.record_bytes("fp16", 1000, 10) == 40
    assert codecs.record_bytes("q4", 7) == 4 + 4  # seven half bytes, rounded up


@pytest.mark.parametrize(("codec", "steps"), [("q8", 255), ("q4", 15)])
def test_a_quantised_value_is_off_by_half_a_step_at_most(codec: str, steps: int) -> None:
    said = logits()
    step = (said.amax(1) - said.amin(1)) / steps
    error = (codecs.round_trip(said, codec) - said).abs().amax(1)
    # The range itself is rounded to fp16.
    assert (error <= step * 0.5 + 2e-2).all()
    assert (error > 0).any()


@pytest.mark.parametrize("codec", codecs.NAMES)
def test_equal_logits_and_single_values_survive(codec: str) -> None:
    flat = torch.full((3, 6), 1.5)
    assert torch.equal(codecs.round_trip(flat, codec), flat)
    kept = codecs.round_trip(logits(), codec, store_top_k=1)
    assert torch.equal(kept.argmax(1), logits().argmax(1))


@pytest.mark.parametrize("codec", codecs.NAMES)
def test_only_the_largest_are_kept_and_share_the_mass(codec: str) -> None:
    said = logits()
    back = codecs.round_trip(said, codec, store_top_k=4)
    kept = back > -torch.inf
    assert (kept.sum(1) == 4).all()
    assert torch.equal(kept, said >= said.topk(4, 1).values[:, -1:])
    made = soft(
        LabelInputs(torch.zeros(50).long(), 11, said[None]), temperature=2.0, codec=codec, store_top_k=4
    )
    probabilities = made.source.targets.probabilities
    torch.testing.assert_close(probabilities.sum(1), torch.ones(50))
    torch.testing.assert_close(probabilities, torch.softmax(back / 2, 1))
    assert made.labels_bytes == 50 * codecs.record_bytes(codec, 11, 4)
    assert made.source.targets.logits.isfinite().all()


def test_missing_logits_become_the_smallest_kept_one() -> None:
    filled = fill_missing(torch.tensor([[3.0, -torch.inf, 1.0], [-torch.inf, -torch.inf, 2.0]]))
    assert filled.tolist() == [[3, 1, 1], [2, 2, 2]]
