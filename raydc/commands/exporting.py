"""Commands that export results for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from raydc.commands.analysing import rows_of
from raydc.commands.terminal import AsJson, Only, StoreUri, emit, reported, say, show_table


def export_labels(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A study's folder.")],
    to: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="A new folder for the files.")],
    store: StoreUri = None,
    only: Only = None,
    as_json: AsJson = False,
) -> None:
    """Export labels of views in FKD's format (epoch_E/batch_B.tar), with their images."""
    with reported():
        from raydc.study.label_export import export_fkd

        written = export_fkd(directory, rows_of(str(directory), None, only), to, store)
        rows = [
            {
                "folder": str(one.folder),
                **one.key,
                "images": one.images,
                "batches": one.batches,
                "bytes": one.nbytes,
            }
            for one in written
        ]

        def show() -> None:
            show_table("Labels in FKD's format", rows, ["folder", "images", "batches", "bytes"])
            say(f"to train on them: labels: {{kind: fkd, path: {written[0].folder}}}")

        emit(rows, as_json, show)
