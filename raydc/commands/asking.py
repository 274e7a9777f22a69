"""Commands that ask what there is, and whether everything is here."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from raydc import shipped
from raydc.commands.terminal import Address, AsJson, StoreUri, TrackingUri, emit, reported, say, show_table
from raydc.errors import InputError, one_of


def list_things(
    what: Annotated[
        str,
        typer.Argument(
            help="datasets, methods, scores, labels, recipes, augmentations, studies or reproductions."
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """What there is, one line each."""
    with reported():
        from raydc.spec import catalog

        registries: dict[str, Any] = {
            "datasets": catalog.DATASETS,
            "methods": catalog.METHODS,
            "scores": catalog.SCORES,
            "labels": catalog.LABELS,
            "recipes": catalog.RECIPES,
            "augmentations": catalog.AUGMENTATIONS,
        }
        if what == "studies":
            rows = [{"name": s.name, "summary": s.summary} for s in shipped.studies()]
        elif what == "reproductions":
            from raydc import reproduce as reproductions

            rows = [{"name": n, "summary": reproductions.load(n).source} for n in reproductions.names()]
        elif what in registries:
            rows = [{"name": entry.name, "summary": entry.summary} for entry in registries[what]]
        else:
            raise InputError(f"list {what}: it must be {one_of([*registries, 'studies', 'reproductions'])}")

        def show() -> None:
            width = max((len(row["name"]) for row in rows), default=0)
            for row in rows:
                say(f"{row['name']:<{width}}  {row['summary']}")

        emit(rows, as_json, show)


def doctor(
    address: Address = None, tracking_uri: TrackingUri = None, store: StoreUri = None, as_json: AsJson = False
) -> None:
    """Check Python, torch, the device, Ray, MLflow and the disk; with --address every node of a cluster."""
    with reported():
        if address is None:
            from raydc.doctor import examine

            found = examine(tracking_uri, store or ".")
        else:
            from raydc.cluster_doctor import examine_cluster

            found = examine_cluster(address, tracking_uri, store)
    rows = [{"check": f.check, "ok": f.ok, "found": f.found, "mend": None if f.ok else f.mend} for f in found]
    emit(rows, as_json, lambda: show_table("raydc doctor", rows))
    raise typer.Exit(0 if all(f.ok for f in found) else 2)
