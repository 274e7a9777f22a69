"""The reference pages are what the schema says now."""

from __future__ import annotations

from pathlib import Path

import pytest

from raydc.spec.reference import PAGES

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", PAGES)
def test_pages_are_up_to_date(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == PAGES[name](), "run python -m raydc.spec.reference"
