"""raydc watch: progress of a study, read from its folder or from MLflow."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from raydc.commands.terminal import TrackingUri, Where, out, reported, say
from raydc.spec.quantities import duration
from raydc.study.console import LINE_SECONDS
from raydc.study.pace import rate

if TYPE_CHECKING:
    from raydc.study.watch import State

SHARE_OF_READING = 0.1
"""Largest fraction of the time spent reading; a record of thousands of results is read less often."""


def watch(
    where: Where,
    tracking_uri: TrackingUri = None,
    once: Annotated[bool, typer.Option("--once", help="Print the progress once and exit.")] = False,
    every: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="Time between two updates.")] = 2.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per line and update.")
    ] = False,
) -> None:
    """Watch a study, in its folder or in MLflow, until it ends; exit with the code of its run."""
    with reported():
        from raydc.study.watch import state_of

        states = _states(lambda: state_of(where, tracking_uri), every, once)
        try:
            state = _json(states) if as_json else _live(states) if out.is_terminal else _lines(states)
        except KeyboardInterrupt:
            raise typer.Exit(0) from None
    raise typer.Exit(state.exit_code or 0)


def _states(read: Callable[[], State], every: float, once: bool) -> Iterator[State]:
    """States, `every` seconds apart or more, until the study has ended."""
    while True:
        began = time.monotonic()
        state = read()
        took = time.monotonic() - began
        yield state
        if once or state.exit_code is not None:
            return
        time.sleep(max(every, took / SHARE_OF_READING))


def _json(states: Iterator[State]) -> State:
    for state in states:
        sys.stdout.write(json.dumps(state.row(), allow_nan=False) + "\n")
        sys.stdout.flush()
    return state


def _lines(states: Iterator[State]) -> State:
    """Print a line when the state has changed, at most every LINE_SECONDS, and each failure once."""
    printed, printed_at = "", -LINE_SECONDS
    known: set[str] = set()
    for state in states:
        for failure in reversed(state.failures):
            if failure.evaluation_id not in known:
                known.add(failure.evaluation_id)
                say(f"failed: {failure.evaluation_id}: {failure.error}")
        line, now = status_line(state), time.monotonic()
        if state.exit_code is not None or (line != printed and now - printed_at >= LINE_SECONDS):
            say(line)
            printed, printed_at = line, now
    return state


def _live(states: Iterator[State], console: Console = out) -> State:
    with Live(console=console, auto_refresh=False) as live:
        for state in states:
            live.update(picture(state), refresh=True)
    return state


def status_line(state: State) -> str:
    """`quickstart: 12/300 ended, 1 failed, 40/min, best 91.0 % (...), 7 min 12 s left`."""
    of = f"/{state.planned}" if state.planned is not None else ""
    parts = [f"{state.study}: {state.ended}{of} ended", *_counts(state)]
    if state.per_minute is not None and state.exit_code is None:
        parts.append(f"{rate(state.per_minute)}/min")
    if state.best is not None:
        parts.append(f"best {100 * state.best:.1f} % ({state.best_name})")
    parts.append(ending(state))
    return ", ".join(parts)


def _counts(state: State) -> list[str]:
    """Counts of failed, stopped and running evaluations."""
    counts = {"failed": state.failed, "stopped": state.stopped, "running": state.running or 0}
    return [f"{count} {name}" for name, count in counts.items() if count]


def ending(state: State) -> str:
    """How the study ended, or the time left."""
    if state.exit_code is None:
        return "in progress" if state.seconds_left is None else f"{duration(state.seconds_left)} left"
    if state.exit_code == 0 and state.behind_is_unknown:
        return f"done; whether the tracker {state.tracker!r} has every result is unknown on this machine"
    return {0: "done", 3: "done, some failed", 4: "done, MLflow is behind", 130: "interrupted"}[
        state.exit_code
    ]


def picture(state: State) -> RenderableType:
    """The state as a table for a terminal."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column()
    of = "" if state.planned is None else f" of {state.planned}"
    table.add_row("ended", Text(", ".join([f"{state.ended}{of}", *_counts(state)])))
    if state.planned:
        table.add_row("", ProgressBar(total=state.planned, completed=state.ended, width=40))
    if state.per_minute is not None:
        table.add_row("rate", f"{rate(state.per_minute)}/min")
    table.add_row("state", ending(state))
    if state.best is not None:
        table.add_row("best", Text(f"{100 * state.best:.1f} %  {state.best_name}"))
    if state.last_at is not None:
        table.add_row("last result", f"{duration(max(0.0, time.time() - state.last_at))} ago")
    for failure in state.failures:
        table.add_row(
            "failed", Text(f"{failure.evaluation_id}: {failure.error}", overflow="ellipsis", no_wrap=True)
        )
    return Group(Text(state.study, style="bold"), table)
