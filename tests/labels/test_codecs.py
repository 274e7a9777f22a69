"""Codecs: what comes back, and that bytes are counted as they are stored."""

from __future__ import annotations

import pytest
import torch

from raydc.errors import EvaluationError
from raydc.labels import codecs
from raydc.labels.kinds import soft
from raydc.labels.transforms import fill_missing
from raydc.spec.catalog import CODECS
from raydc.testing.label_contract import GivenInputs


def logits(count: int = 50, classes: int = 11) -> torch.Tensor:
    return torch.randn(count, classes, generator=torch.Generator().manual_seed(0)) * 5


@pytest.mark.parametrize("keep", [None, 1, 4, 11, 99])
@pytest.mark.parametrize("codec", CODECS.names())
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


@pytest.mark.parametrize("codec", CODECS.names())
def test_equal_logits_and_single_values_survive(codec: str) -> None:
    flat = torch.full((3, 6), 1.5)
    assert torch.equal(codecs.round_trip(flat, codec), flat)
    kept = codecs.round_trip(logits(), codec, store_top_k=1)
    assert torch.equal(kept.argmax(1), logits().argmax(1))


@pytest.mark.parametrize("codec", CODECS.names())
def test_only_the_largest_are_kept_and_share_the_mass(codec: str) -> None:
    said = logits()
    back = codecs.round_trip(said, codec, store_top_k=4)
    kept = back > -torch.inf
    assert (kept.sum(1) == 4).all()
    assert torch.equal(kept, said >= said.topk(4, 1).values[:, -1:])
    made = soft(
        GivenInputs(torch.zeros(50).long(), 11, said[None]), temperature=2.0, codec=codec, store_top_k=4
    )
    probabilities = made.source.targets.probabilities
    torch.testing.assert_close(probabilities.sum(1), torch.ones(50))
    torch.testing.assert_close(probabilities, torch.softmax(back / 2, 1))
    assert made.labels_bytes == 50 * codecs.record_bytes(codec, 11, 4)
    assert made.source.targets.logits.isfinite().all()


def test_missing_logits_become_the_smallest_kept_one() -> None:
    filled = fill_missing(torch.tensor([[3.0, -torch.inf, 1.0], [-torch.inf, -torch.inf, 2.0]]))
    assert filled.tolist() == [[3, 1, 1], [2, 2, 2]]


@pytest.mark.parametrize("codec", ["fp16", "q8", "q4"])
@pytest.mark.parametrize("value", [65505.0, -7e4, 3e38])
def test_what_a_codec_does_not_hold_is_refused(codec: str, value: float) -> None:
    said = logits()
    said[7, 3] = value
    with pytest.raises(
        EvaluationError, match=rf"labels.codec is {codec}, which stores at most 65,504, but .*fp32$"
    ):
        codecs.encode(said, codec)
    with pytest.raises(EvaluationError, match=f"labels.codec is {codec}"):
        soft(GivenInputs(torch.zeros(50).long(), 11, said[None]), temperature=1.0, codec=codec)
    assert torch.equal(codecs.encode(said, "fp32").decode(), said)


@pytest.mark.parametrize("codec", CODECS.names())
def test_the_largest_values_that_are_allowed_come_back_finite(codec: str) -> None:
    said = torch.tensor([[65504.0, -65504.0, 0.0], [65504.0, 65503.0, 1.0]])
    back = codecs.encode(said, codec).decode()
    assert back.isfinite().all()
    assert torch.equal(back[0].argsort(), said[0].argsort())
    with pytest.raises(EvaluationError, match="the logits contain nan"):
        codecs.encode(said * torch.nan, codec)


@pytest.mark.parametrize("classes", [32_768, 40_000, 65_536])
@pytest.mark.parametrize("codec", CODECS.names())
def test_class_numbers_of_two_bytes_reach_65536_classes(codec: str, classes: int) -> None:
    said = torch.zeros(3, classes)
    largest = torch.tensor([[0, classes - 1], [32_767, classes - 2], [classes // 2, 32_766]])
    said.scatter_(1, largest, torch.tensor([[3.0, 2.0]]).expand(3, 2))
    encoded = codecs.encode(said, codec, 2)
    back = encoded.decode()
    assert torch.equal(back.topk(2, 1).indices, largest)
    assert ((back > -torch.inf).sum(1) == 2).all()
    assert encoded.nbytes == 3 * codecs.record_bytes(codec, classes, 2)


def test_more_classes_than_two_bytes_number_are_refused() -> None:
    said = torch.zeros(2, 65_537)
    with pytest.raises(
        EvaluationError, match=r"have 65,537 classes, but the 16-bit class numbers .* allow at most 65,536"
    ):
        codecs.encode(said, "fp16", 5)
    with pytest.raises(EvaluationError, match=r"remove labels\.store_top_k and labels\.top_k"):
        codecs.record_bytes("fp16", 65_537, 5)
    assert codecs.encode(said, "fp16").nbytes == 2 * codecs.record_bytes("fp16", 65_537)
