"""Commands that judge methods: DD-Ranking's scores, and what a classifier says of compressed sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from raydc.commands.analysing import rows_of
from raydc.commands.terminal import AsJson, Only, TrackingUri, Where, emit, reported, show_table
from raydc.errors import InputError

if TYPE_CHECKING:
    from raydc.analysis.curves import Mean


def ddranking(
    where: Where,
    full_acc: Annotated[
        float | None,
        typer.Option(metavar="FRACTION", help="Accuracy of the full dataset with hard labels, from 0 to 1."),
    ] = None,
    full: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="A study whose images are the full dataset, with hard labels."),
    ] = None,
    weight: Annotated[float, typer.Option(help="w: what IOR counts in LRS; HLR counts 1 - w.")] = 0.5,
    gamma: Annotated[float, typer.Option(help="g: what points with augmentation count in ARS.")] = 0.5,
    only: Only = None,
    tracking_uri: TrackingUri = None,
    as_json: AsJson = False,
) -> None:
    """DD-Ranking: hard label recovery, improvement over random, LRS and ARS of every method."""
    with reported():
        from raydc.analysis.ddranking import ddranking as analyse
        from raydc.report.html import percent

        if full_acc is not None and full is not None:
            raise InputError("--full-acc and --full exclude each other; keep one")
        whole = full_acc if full is None else rows_of(full, tracking_uri, None)
        found = analyse(rows_of(where, tracking_uri, only), whole, weight, gamma)
        rows = [
            {
                **item.key,
                **_ends("test_acc", item.test_acc),
                **_ends("hlr", item.hlr),
                **_ends("ior", item.ior),
                **_ends("lrs", item.lrs),
                **_ends("ars", item.ars),
                "replicates": item.test_acc.count,
                "notes": list(item.notes),
            }
            for item in found
        ]
        shown = [
            {
                "method": item.label,
                "test accuracy": percent(item.test_acc),
                "HLR": percent(item.hlr),
                "IOR": percent(item.ior),
                "LRS": percent(item.lrs),
                "ARS": percent(item.ars),
                "note": "; ".join(item.notes) or None,
            }
            for item in found
        ]
        emit(rows, as_json, lambda: show_table("DD-Ranking", shown))


def _ends(name: str, mean: Mean | None) -> dict[str, Any]:
    """A mean and its interval as columns."""
    ends = (None, None, None) if mean is None else (mean.value, mean.low, mean.high)
    return dict(zip((name, f"{name}_low", f"{name}_high"), ends, strict=True))
