"""The contract of codecs: sizes are as counted, and decoded logits are close to the original ones."""

from __future__ import annotations

import pytest
import torch

from raydc.errors import EvaluationError
from raydc.labels import codecs
from raydc.spec.catalog import CODECS, Codec
from raydc.testing.parts import each

every_codec = each("codec", CODECS)
CLASSES = 11


def logits() -> torch.Tensor:
    return torch.randn(20, CLASSES, generator=torch.Generator().manual_seed(0)) * 5


@every_codec
@pytest.mark.parametrize("keep", [None, 1, 4, CLASSES])
def test_the_size_of_a_record_is_as_counted(codec: Codec, keep: int | None) -> None:
    encoded = codecs.encode(logits(), codec.name, keep)
    assert encoded.nbytes == 20 * codecs.record_bytes(codec.name, CLASSES, keep)


@every_codec
def test_decoded_logits_are_close(codec: Codec) -> None:
    back = codecs.round_trip(logits(), codec.name)
    assert back.shape == (20, CLASSES)
    assert back.dtype == torch.float32
    spread = logits().amax(1) - logits().amin(1)
    assert ((back - logits()).abs().amax(1) <= spread / 8).all()


@every_codec
def test_records_do_not_depend_on_each_other(codec: Codec) -> None:
    whole = codecs.round_trip(logits(), codec.name)
    assert torch.equal(codecs.round_trip(logits()[3:5], codec.name), whole[3:5])


@every_codec
def test_unsupported_values_are_refused(codec: Codec) -> None:
    largest = codecs.codec_of(codec.name).largest
    assert largest > 0
    with pytest.raises(EvaluationError):
        codecs.check(codec.name, float("nan"))
    if largest < 1e38:
        with pytest.raises(EvaluationError, match=f"labels.codec is {codec.name}"):
            codecs.check(codec.name, largest * 1.01)
