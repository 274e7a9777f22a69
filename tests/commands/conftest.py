"""A study that was run without Ray."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from raydc.spec.plan import Plan
    from raydc.spec.study import StudySpec
    from raydc.store.local import LocalStore
    from raydc.worker.workbench import Workbench


@pytest.fixture
def recorded(
    tmp_path: Path, ready: Callable[[StudySpec], Plan], bench: Workbench, store: LocalStore
) -> Callable[[StudySpec], Path]:
    """The folder of a study whose evaluations were run without Ray."""
    from raydc.tracking.ledger import Ledger
    from raydc.tracking.study_folder import STUDY as STUDY_FILE
    from raydc.worker.evaluate import attempt

    def make(study: StudySpec) -> Path:
        study = study.located(None, str(store.root))
        (tmp_path / STUDY_FILE).write_text(study.to_yaml())
        with Ledger(tmp_path) as ledger:
            ledger.append(attempt(planned, bench, study="small") for planned in ready(study).evaluations)
        return tmp_path

    return make
