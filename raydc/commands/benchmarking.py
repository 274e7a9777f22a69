"""Commands that score methods: DD-Ranking, and entropy and NLL of compressed sets under a classifier."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raydc.commands.analysing import rows_of
from raydc.commands.terminal import (
    AsJson,
    Only,
    StoreUri,
    TrackingUri,
    Where,
    emit,
    out,
    reported,
    say,
    show_table,
)
from raydc.errors import InputError

if TYPE_CHECKING:
    from raydc.analysis.entropy import MeanPoint, Order, Reversal
    from raydc.analysis.intervals import Mean
    from raydc.study.set_entropy import Judged


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
    weight: Annotated[float, typer.Option(help="w: weight of IOR in LRS; HLR has 1 - w.")] = 0.5,
    gamma: Annotated[float, typer.Option(help="g: weight of the IOR with augmentation in ARS.")] = 0.5,
    only: Only = None,
    tracking_uri: TrackingUri = None,
    as_json: AsJson = False,
) -> None:
    """Print DD-Ranking's scores of every method: HLR, improvement over random, LRS and ARS."""
    with reported():
        from raydc.analysis.ddranking import ddranking as analyse
        from raydc.report.tables import percent

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


def entropy(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A study's folder.")],
    teacher: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="A teacher of the study, or a block such as '{arch: ..., checkpoint: FILE}'."
        ),
    ] = None,
    epoch: Annotated[int | None, typer.Option(help="Epoch of the teacher (default: the last).")] = None,
    ratio: Annotated[
        str, typer.Option(metavar="LIST", help="Crop ratios, as fractions of the area; 1 is always added.")
    ] = "0.08,0.15,0.25,0.4,0.6,0.8,1",
    draws: Annotated[int, typer.Option(help="Number of crops of each image at each ratio.")] = 4,
    seed: Annotated[int, typer.Option(help="Seed of the crops.")] = 0,
    plot: Annotated[
        Path | None, typer.Option(help="Write the figure to this file: .svg, .pdf or .png.")
    ] = None,
    store: StoreUri = None,
    only: Only = None,
    as_json: AsJson = False,
) -> None:
    """Print entropy and NLL of compressed sets under a classifier, for whole images and random crops."""
    with reported():
        from raydc.analysis.entropy import mean_points, orders, reversals
        from raydc.study.set_entropy import judge

        judged = judge(
            directory,
            rows_of(str(directory), None, only),
            teacher=teacher,
            epoch=epoch,
            ratios=_numbers(ratio),
            draws=draws,
            seed=seed,
            store_uri=store,
        )
        means = mean_points(judged.points)
        set_orders, set_reversals = orders(judged.points), reversals(judged.points)
        if plot is not None:
            from raydc.report import drawing

            try:
                drawing.save(drawing.entropy(means), plot)
            except (OSError, ValueError) as error:
                raise InputError(f"--plot is {str(plot)!r}, which cannot be written: {error}") from None
        rows = _entropy_rows(judged, set_orders, set_reversals)
        emit(rows, as_json, lambda: _show_entropy(judged, means, set_orders, set_reversals, plot))


def _numbers(text: str) -> list[float]:
    """`0.08,0.5,1` as numbers."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(
            f"--ratio is {text!r}, but must be numbers separated by commas, such as 0.08,0.5,1"
        ) from None


def _entropy_rows(
    judged: Judged, set_orders: list[Order], set_reversals: list[Reversal]
) -> list[dict[str, Any]]:
    """One row for each set and ratio, each pair of kinds at a ratio, and each pair that crops may reverse."""
    rows: list[dict[str, Any]] = [
        {
            "what": "set",
            "classifier": judged.classifier,
            "set_id": p.set_id,
            **p.key,
            "seeds": list(p.seeds),
            "ratio": p.ratio,
            "entropy": p.entropy,
            "nll": p.nll,
        }
        for p in judged.points
    ]
    rows += [
        {
            "what": "order",
            "lower_nll": o.one,
            "other": o.other,
            "ratio": o.ratio,
            **_ends("nll_difference", o.nll),
            **_ends("entropy_difference", o.entropy),
            "pairs": o.pairs,
            "opposed": o.opposed,
            "disagrees": o.disagrees,
        }
        for o in set_orders
    ]
    rows += [
        {
            "what": "reversal",
            "lower_entropy": r.one,
            "other": r.other,
            **_ends("advantage", r.advantage),
            "r_star": r.ratio,
            "r_star_low": r.low,
            "r_star_high": r.high,
            "note": r.note or None,
        }
        for r in set_reversals
    ]
    return rows


def _show_entropy(
    judged: Judged,
    means: list[MeanPoint],
    set_orders: list[Order],
    set_reversals: list[Reversal],
    plot: Path | None,
) -> None:
    from raydc.analysis.curves import label_of
    from raydc.report.tables import interval

    accuracy = "" if judged.test_acc is None else f", {100 * judged.test_acc:.1f} % on test"
    show_table(
        f"Under {judged.classifier}{accuracy}",
        [
            {
                "set": p.label,
                "crop ratio": p.ratio,
                "entropy H": interval(p.entropy),
                "NLL": interval(p.nll),
                "sets": p.nll.count,
            }
            for p in means
        ],
    )
    out.print()
    _show_orders(set_orders)
    if set_reversals:
        out.print()
        show_table(
            "Crop ratio r* at which the entropy advantage of whole images vanishes (Theorem 4.2)",
            [
                {
                    "lower entropy": label_of(r.one),
                    "than": label_of(r.other),
                    "advantage, whole": interval(r.advantage),
                    "r*": r.text(),
                    "note": r.note or None,
                }
                for r in set_reversals
            ],
        )
    if judged.missing:
        say(f"{judged.missing} compressed sets are no longer in the store and were left out")
    if plot is not None:
        say(f"figure: {plot}")


def _show_orders(set_orders: list[Order]) -> None:
    """Kinds of sets that NLL and entropy order differently."""
    from raydc.analysis.curves import label_of
    from raydc.report.tables import interval

    opposed = [o for o in set_orders if o.disagrees and o.clear]
    unclear = sum(o.disagrees and not o.clear for o in set_orders)
    if opposed:
        show_table(
            "A lower NLL with a higher entropy (Proposition 4.1)",
            [
                {
                    "lower NLL": label_of(o.one),
                    "lower entropy": label_of(o.other),
                    "crop ratio": o.ratio,
                    "NLL, difference": interval(o.nll),
                    "H, difference": interval(o.entropy),
                    "pairs": f"{o.opposed} of {o.pairs}",
                }
                for o in opposed
            ],
        )
    else:
        say("NLL and entropy order no two kinds of sets in clearly different ways (Proposition 4.1).")
    if unclear:
        say(f"{unclear} more pairs differ in order, but within their intervals; --json prints all pairs")


def _ends(name: str, mean: Mean | None) -> dict[str, Any]:
    """A mean and its interval as columns."""
    ends = (None, None, None) if mean is None else (mean.value, mean.low, mean.high)
    return dict(zip((name, f"{name}_low", f"{name}_high"), ends, strict=True))
