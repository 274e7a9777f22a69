"""Made and mutated files: read, or refused in one sentence; what once was neither stays refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raydc.spec import catalog
from raydc.spec.point import point_grammar
from raydc.spec.yaml_file import dump_yaml
from tests.fuzz.targets import TARGETS, Target, allowed

REGRESSIONS = Path(__file__).parent / "regressions"
QUICK = settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
INTERESTING = (b"\0", b"\xff" * 4, b"\x7f\xff\xff\xff", b"\xff" * 8, b"(", b".", b"[" * 200, b"-1", b"1e999")
"""What numbers, lengths and brackets are when something breaks."""


@st.composite
def mutated(draw: st.DrawFn, target: Target) -> bytes:
    """A valid file after one to six cuts, flips, insertions and splices."""
    seeds = target.seeds()
    content = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, len(content)))
        length = draw(st.integers(1, 40))
        kind = draw(st.sampled_from(["flip", "cut", "insert", "interesting", "splice", "repeat"]))
        if kind == "flip" and start < len(content):
            content[start] ^= 1 << draw(st.integers(0, 7))
        elif kind == "cut":
            del content[start : start + length]
        elif kind == "insert":
            content[start:start] = draw(st.binary(max_size=16))
        elif kind == "interesting":
            known = draw(st.sampled_from(INTERESTING))
            content[start : start + len(known)] = known
        elif kind == "splice":
            other = draw(st.sampled_from(seeds))
            place = draw(st.integers(0, len(other)))
            content[start : start + length] = other[place : place + length]
        elif kind == "repeat":
            content[start:start] = content[start : start + length] * draw(st.integers(1, 20))
    return bytes(content)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_mutated_files(target: Target) -> None:
    @QUICK
    @given(content=mutated(target))
    def check(content: bytes) -> None:
        allowed(target, content)

    check()


KEYS = [
    *point_grammar().keys,
    "seeds",
    "grid",
    "search",
    "teacher",
    "scorer",
    "resources.workers",
    "store.uri",
]
WORDS = [name for entries in (catalog.METHODS, catalog.LABELS, catalog.RECIPES) for name in entries.names()]
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(
        [*WORDS, "convnet-d2-w8", "convnet-d999999-w1", "timm/resnet18", "../x", "auto", "1e400"]
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=8,
)
STUDIES = st.fixed_dictionaries(
    {
        "name": st.just("made") | VALUES,
        "dataset": st.sampled_from(["digits", "cifar10"]) | VALUES,
        "base": st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=8),
    },
    optional={
        "grid": st.dictionaries(st.sampled_from(KEYS), st.lists(VALUES, max_size=3), max_size=4) | VALUES,
        "teacher": st.dictionaries(st.sampled_from(["arch", "epochs", "keep", "lr", "checkpoint"]), VALUES),
        "search": st.fixed_dictionaries({"optuna": VALUES}) | VALUES,
        "seeds": VALUES,
        "smoke": VALUES,
    },
)


@settings(QUICK, max_examples=400)
@given(study=STUDIES)
def test_made_studies(study: dict[str, object]) -> None:
    """Known keys with values of every kind."""
    allowed(TARGETS["study"], dump_yaml(study).encode())


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_seeds_are_read(target: Target) -> None:
    """Else the mutations are of nothing."""
    assert any(allowed(target, seed) for seed in target.seeds())


def regressions() -> list[Path]:
    return sorted(path for path in REGRESSIONS.glob("*/*") if path.parent.name in TARGETS)


@pytest.mark.parametrize("path", regressions(), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_what_once_went_wrong(path: Path) -> None:
    allowed(TARGETS[path.parent.name], path.read_bytes())
