"""Numbers of JSON are finite, also those that are too large for a float."""

from __future__ import annotations

import pytest

from raydc.files.plain_json import parse_json


@pytest.mark.parametrize("text", ["1e999", "[-1e999]", '{"a": 1.0e400}', "NaN", "-Infinity"])
def test_numbers_that_are_not_finite_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"too large for a number|not valid JSON"):
        parse_json(text)


def test_finite_numbers_are_exact() -> None:
    assert parse_json("[0.1, -1e308, 5e-324, 7]") == [0.1, -1e308, 5e-324, 7]
