"""A search whose worker trains nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.search.lab import SEARCH, SPACE, Lab, Make

if TYPE_CHECKING:
    from raydc.data.dataset import Dataset
    from raydc.spec.study import StudySpec


@pytest.fixture
def lab(small: Callable[..., StudySpec], digits: Dataset, tmp_path: Path) -> Make:
    def make(
        *settings: str, folder: str = "out", space: str = SPACE, kind: type[Lab] = Lab, **options: Any
    ) -> Lab:
        (tmp_path / folder).mkdir(exist_ok=True)
        study = small(*settings, extra=SEARCH + space)
        return kind(tmp_path / folder, study, digits, **options)

    return make
