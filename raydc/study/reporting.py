"""Results, figures and the report of a study, from its folder or from MLflow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from raydc.spec import plugins
from raydc.store.opening import open_store
from raydc.tracking import study_folder
from raydc.tracking.rows import MLFLOW, load_rows

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def write(
    where: str,
    tracking_uri: str | None,
    store: str | None,
    pictures: Path | None = None,
    formats: Sequence[str] = ("png",),
) -> Path:
    """Write the report and figures of a folder or an experiment; returns the report's path.

    Figures of a folder are always written into it; those of an experiment only if `pictures` is a folder.
    """
    from raydc.report.html import write_report
    from raydc.search.history import read_history

    rows = load_rows(where, tracking_uri)
    if where.startswith(MLFLOW):
        name = where.removeprefix(MLFLOW)
        opened = open_store(store) if store else None
        return write_report(rows, Path(f"{name}-report.html"), opened, "", pictures, formats)
    directory = Path(where)
    uri = store or study_folder.store_of(directory)
    command = f"raydc {plugins.options()}run {directory / study_folder.STUDY} --out {directory}"
    pictures, history = pictures or directory / study_folder.FIGURES, read_history(directory)
    return write_report(
        rows, directory / study_folder.REPORT, open_store(uri), command, pictures, formats, history
    )


def results(where: str | Path, tracking_uri: str | None = None) -> pd.DataFrame:
    """The results table of a study's folder or of `mlflow:EXPERIMENT`, one row per evaluation."""
    return study_folder.table(load_rows(str(where), tracking_uri))


def figures(where: str | Path, tracking_uri: str | None = None) -> dict[str, Figure]:
    """The report's figures as matplotlib objects, by name."""
    from raydc.report.drawing import drawn
    from raydc.report.html import figures_of

    rows = load_rows(str(where), tracking_uri)
    store = None if str(where).startswith(MLFLOW) else open_store(study_folder.store_of(Path(where)))
    return drawn(figures_of(rows, store))
