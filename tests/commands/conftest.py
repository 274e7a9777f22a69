"""Folders in which raydc is used, one of them with a finished study."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.commands.shell import Shell

if TYPE_CHECKING:
    from pathlib import Path

    from raydc.spec.plan import Plan
    from raydc.spec.study import StudySpec
    from raydc.store.local import LocalStore
    from raydc.worker.workbench import Workbench


@pytest.fixture(scope="session")
def make_shell(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Shell]:
    return lambda: Shell(tmp_path_factory.mktemp("shell"))


@pytest.fixture(scope="session")
def finished(make_shell: Callable[[], Shell]) -> Shell:
    """A shell in which the tiny study has run into runs/tiny, in a process of its own."""
    shell = make_shell()
    shell.said = shell.process("run", "tiny.yaml").stdout  # type: ignore[attr-defined]
    return shell


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
