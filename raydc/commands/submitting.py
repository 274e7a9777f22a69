"""raydc submit: runs a study as a job on a Ray cluster."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from raydc.commands.running import load
from raydc.commands.terminal import Download, Settings, Smoke, StoreUri, TrackingUri, err, reported, say
from raydc.errors import InputError


def submit(
    address: Annotated[
        str, typer.Option(help="URL of the cluster's job server, such as http://127.0.0.1:8265.")
    ],
    study: Annotated[
        str | None, typer.Argument(help="A study file, or the name of one that comes with raydc.")
    ] = None,
    followed: Annotated[
        str | None, typer.Option("--follow", metavar="JOB", help="Follow a job that was submitted before.")
    ] = None,
    stopped: Annotated[
        str | None,
        typer.Option("--stop", metavar="JOB", help="Stop a job; submit the study again to resume it."),
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Do not follow the log.")] = False,
    directory: Annotated[
        str | None,
        typer.Option("--out", help="Folder of the results on the cluster (default: ~/raydc-runs/NAME)."),
    ] = None,
    tracking_uri: TrackingUri = None,
    store: StoreUri = None,
    settings: Settings = None,
    smoke: Smoke = False,
    download: Download = False,
) -> None:
    """Run a study as a job of a Ray cluster and follow its log; Ctrl-C leaves it running."""
    with reported():
        if sum(given is not None for given in (study, followed, stopped)) != 1:
            raise InputError("submit takes a study, or --follow JOB, or --stop JOB; give one of them")
        from raydc.orchestration import jobs

        if study is not None:
            if store is not None and "://" not in store:
                store = str(Path(store).absolute())
            loaded = load(study, settings, smoke).located(tracking_uri, store)
            loaded.evaluations()  # raises the errors that need no data to find
            job = jobs.Job(loaded, directory, ["--download"] if download else [])
            jobs.check(job, address)
        client = jobs.connect(address)
        if stopped is not None:
            was_running = jobs.stop(client, address, stopped)
            say(f"{stopped} is stopped" if was_running else f"{stopped} had already ended")
            return
        name = followed or jobs.submit(client, address, job)
        again = f"`raydc submit --follow {name} --address {address}` follows it"
        if study is not None:
            say(f"submitted {name}; {again}")
        if detach:
            return
        try:
            code = jobs.follow(client, address, name, _write)
        except KeyboardInterrupt:
            err.print(f"detached: {name} keeps running; {again}", style="yellow", soft_wrap=True)
            code = 130
    raise typer.Exit(code)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
