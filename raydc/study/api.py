"""The Python API: what the commands do, for notebooks and scripts.

import raydc

study = raydc.Study.from_file("quickstart", settings={"base.train.steps": 100})
run = study.run("runs/quickstart")
run.results.groupby("labels.kind")["test_acc"].mean()
run.figures()["accuracy"].savefig("accuracy.pdf")
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich.console import Console

from raydc.orchestration.progress import Progress, Silent
from raydc.spec import shipped_studies
from raydc.spec.evaluation import Evaluation
from raydc.spec.study import StudySpec, load_study, parse_study
from raydc.spec.yaml_file import dump_yaml
from raydc.study.console import LiveProgress
from raydc.study.reporting import figures, results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from raydc.study.summary import Summary


@dataclass(frozen=True)
class Run:
    """A run that has ended."""

    summary: Summary
    """Counts, times and the parallel efficiency; `summary.exit_code` is the command's exit code."""

    @property
    def folder(self) -> Path:
        """The study's folder."""
        return self.summary.out

    @property
    def results(self) -> pd.DataFrame:
        """The results table, one row per evaluation."""
        return results(self.folder)

    def figures(self) -> dict[str, Figure]:
        """The report's figures by name."""
        return figures(self.folder)


@dataclass(frozen=True)
class Study:
    """A checked study that can be planned and run."""

    checked: StudySpec

    @staticmethod
    def from_file(
        file: str | Path, *, settings: Mapping[str, Any] | None = None, smoke: bool = False
    ) -> Study:
        """The study in a file, or the study of that name that comes with raydc.

        `settings` maps dotted keys from the file's root to values, as `--set`; `smoke` merges the file's
        smoke block. Raises `InputError` (a ValueError) if the study is invalid.
        """
        return Study(load_study(shipped_studies.find(str(file)), settings=_texts(settings), smoke=smoke))

    @staticmethod
    def from_dict(content: Mapping[str, Any], *, settings: Mapping[str, Any] | None = None) -> Study:
        """The study that a mapping describes, with the keys of a study file."""
        return Study(parse_study(dump_yaml(dict(content)), "study", settings=_texts(settings)))

    @property
    def name(self) -> str:
        return self.checked.name

    @property
    def evaluations(self) -> list[Evaluation]:
        """All distinct evaluations; for a search, examples, because its points are not known in advance."""
        return self.checked.evaluations()

    def plan(self, out: str | Path | None = None, store: str | None = None) -> pd.DataFrame:
        """The cost of the study, as `raydc plan` shows it."""
        from raydc.study.planning import plan_study

        planned = plan_study(self.checked, None if out is None else Path(out), store, download=False)
        return pd.DataFrame(planned.rows())

    def run(
        self,
        out: str | Path | None = None,
        *,
        address: str | None = None,
        tracking_uri: str | None = None,
        store: str | None = None,
        download: bool = False,
        reuse: bool = True,
        quiet: bool = False,
    ) -> Run:
        """Run the study, or resume it if it was interrupted; the options are those of the command.

        Raises `InputError` before anything is trained if the study cannot run.
        """
        from raydc.study import launch

        directory = Path(out) if out is not None else Path("runs") / self.name

        def go(progress: Progress) -> Summary:
            return launch.run(
                self.checked,
                directory,
                address=address or os.environ.get("RAY_ADDRESS") or None,
                tracking_uri=tracking_uri,
                store_uri=store,
                download=download,
                reuse=reuse,
                progress=progress,
            )

        if quiet:
            return Run(go(Silent()))
        with LiveProgress(Console()) as progress:
            return Run(go(progress))


def _texts(settings: Mapping[str, Any] | None) -> list[str]:
    """Settings as the command line writes them; JSON is YAML."""
    return [f"{key}={json.dumps(value)}" for key, value in (settings or {}).items()]
