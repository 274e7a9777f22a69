"""YAML is read safely: numbers as people write them, no tags, no duplicates, no bombs."""

from __future__ import annotations

import math

import pytest

from raydc.errors import InputError
from raydc.spec.yaml_file import parse_yaml


def test_scalars_follow_yaml_1_2() -> None:
    text = "a: [1e-3, no, yes, on, 2024-01-01, 08, 1:30, '4', null, ~, true, .5, -2, +.inf]"
    values = parse_yaml(text, "f")["a"]
    assert values[:7] == [0.001, "no", "yes", "on", "2024-01-01", 8, "1:30"]
    assert values[7:13] == ["4", None, None, True, 0.5, -2]
    assert math.isinf(values[13])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\na: 2", "line 2, column 1: the key 'a' is given twice"),
        ("a: !!python/object/apply:os.system [x]", "tag"),
        ("a: !custom x", "tag !custom"),
        ("a: [1", "line 1"),
        ("1: 2", "a key is not a string"),
        ("? [a]\n: b", "a key is not a string"),
        ("a: &x [*x]", "an alias contains itself"),
        ("a: \x00", "unacceptable character"),
        ("a: b: c", "mapping values are not allowed here"),
        ("a: " + "9" * 5000, "more than 30 digits"),
        ("--- 1\n--- 2", "document"),
        ("[" * 3000 + "]" * 3000, "nested too deeply"),
    ],
)
def test_what_is_not_plain_is_refused_in_one_sentence(text: str, said: str) -> None:
    with pytest.raises(InputError) as error:
        parse_yaml(text, "file.yaml")
    assert str(error.value).startswith("file.yaml: ")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_aliases_that_blow_up_are_refused() -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    with pytest.raises(InputError, match="200,000 values"):
        parse_yaml("\n".join(lines), "f")


def test_an_alias_that_is_used_sensibly_is_fine() -> None:
    assert parse_yaml("a: &x [1, 2]\nb: *x", "f") == {"a": [1, 2], "b": [1, 2]}
