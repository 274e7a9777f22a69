"""The contract of label kinds (raydc.testing.label_contract)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from raydc.spec.catalog import LABELS, LabelKind
from raydc.testing.label_contract import CHECKS
from raydc.testing.parts import each


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@each("kind", LABELS)
def test_a_kind_keeps_the_contract(
    kind: LabelKind, check: Callable[[LabelKind, Path], None], tmp_path: Path
) -> None:
    check(kind, tmp_path)
