"""The command line: `raydc COMMAND`. Exit codes: 0 success, 2 bad input, 3 some evaluations failed, 4 results
are missing in the tracker, 130 interrupted."""

from __future__ import annotations

import atexit
import gc
import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from raydc import __version__
from raydc.commands import (
    analysing,
    asking,
    benchmarking,
    comparing,
    exporting,
    running,
    submitting,
    watching,
)
from raydc.commands.terminal import reported, say
from raydc.spec import plugins

GARBAGE_THRESHOLDS = 50_000, 20, 20
"""Thresholds of Python's garbage collector; with the defaults, torch and MLflow load a third slower."""

app = typer.Typer(
    help="Dataset distillation and pruning experiments at scale.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _main(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Print informational log messages.")] = False,
    plugin: Annotated[
        list[Path] | None, typer.Option("--plugin", help="A Python file that adds methods, labels, recipes.")
    ] = None,
) -> None:
    if version:
        say(f"raydc {__version__}")
        raise typer.Exit
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(levelname)s: %(message)s",
        stream=sys.stderr,
    )
    with reported():
        plugins.use(plugin or [])


for _command in (
    running.run,
    running.plan,
    watching.watch,
    analysing.results,
    analysing.fit,
    analysing.frontier,
    analysing.worth,
    benchmarking.ddranking,
    benchmarking.entropy,
    comparing.compare,
    analysing.plot,
    analysing.report,
    exporting.export_labels,
    running.reproduce,
    running.sync,
    submitting.submit,
    asking.doctor,
):
    app.command()(_command)
app.command("list")(asking.list_things)


def main() -> None:
    """Entry point of the `raydc` command."""
    gc.set_threshold(*GARBAGE_THRESHOLDS)
    atexit.register(gc.freeze)  # otherwise Python scans all modules at exit, for seconds
    app()


if __name__ == "__main__":
    main()
