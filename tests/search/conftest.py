"""A search whose worker trains nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.search.lab import SEARCH, SPACE, Lab, Make

if TYPE_CHECKING:
    from raydc.data.dataset import Dataset
    from raydc.spec.study import StudySpec


@pytest.fixture(autouse=True)
def _unsynced() -> Iterator[None]:
    """Optuna's storages of these tests are not synced to the disk, which takes most of their time.

    No test here loses power; commits are seen by every process all the same.
    """
    from sqlalchemy import Engine, event

    def unsynced(connection: Any, _: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous = OFF")

    event.listen(Engine, "connect", unsynced)
    yield
    event.remove(Engine, "connect", unsynced)


@pytest.fixture
def lab(small: Callable[..., StudySpec], digits: Dataset, tmp_path: Path) -> Make:
    def make(
        *settings: str, folder: str = "out", space: str = SPACE, kind: type[Lab] = Lab, **options: Any
    ) -> Lab:
        (tmp_path / folder).mkdir(exist_ok=True)
        study = small(*settings, extra=SEARCH + space)
        return kind(tmp_path / folder, study, digits, **options)

    return make
