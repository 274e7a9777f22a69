"""Commands that list what is available and check the installation."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from raydc.commands import completing
from raydc.commands.terminal import Address, AsJson, StoreUri, TrackingUri, emit, reported, say, show_table
from raydc.errors import InputError, one_of
from raydc.spec import shipped_studies


def list_things(
    what: Annotated[
        str,
        typer.Argument(
            help=f"{one_of(completing.KINDS)}.",
            autocompletion=completing.kinds,
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """List what is available, one line each."""
    with reported():
        from raydc.spec import catalog

        if what == "studies":
            rows = [{"name": s.name, "summary": s.summary} for s in shipped_studies.studies()]
        elif what == "reproductions":
            from raydc.report import reproduce as reproductions

            rows = [{"name": n, "summary": reproductions.load(n).source} for n in reproductions.names()]
        elif what in completing.KINDS:
            registry: Any = getattr(catalog, what.upper())
            rows = [{"name": entry.name, "summary": entry.summary} for entry in registry]
        else:
            raise InputError(f"list {what}: it must be {one_of(completing.KINDS)}")

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
            from raydc.commands.doctor import examine

            found = examine(tracking_uri, store or ".")
        else:
            from raydc.commands.cluster_doctor import examine_cluster

            found = examine_cluster(address, tracking_uri, store)
    # The key `mend` is part of the JSON output; the table calls the column `fix`.
    rows = [{"check": f.check, "ok": f.ok, "found": f.found, "mend": None if f.ok else f.fix} for f in found]
    shown = [{"fix" if name == "mend" else name: value for name, value in row.items()} for row in rows]
    emit(rows, as_json, lambda: show_table("raydc doctor", shown))
    raise typer.Exit(0 if all(f.ok for f in found) else 2)
