"""Commands that plan, run and reproduce studies, and keep their trackers up to date."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raydc.commands import completing
from raydc.commands.analysing import signed
from raydc.commands.terminal import (
    Address,
    AsJson,
    Download,
    OutFolder,
    Settings,
    Smoke,
    StoreUri,
    StudyArgument,
    TrackingUri,
    emit,
    err,
    out,
    reported,
    say,
    show_table,
)
from raydc.errors import InputError
from raydc.spec import plugins, shipped_studies
from raydc.spec.quantities import duration
from raydc.study.console import LiveProgress

if TYPE_CHECKING:
    from raydc.report.figures import Intervals
    from raydc.report.reproduce import Reproduction
    from raydc.spec.study import StudySpec
    from raydc.study.summary import Summary


def load(study: str, settings: list[str] | None, smoke: bool) -> StudySpec:
    """Load and check a study by its file or name."""
    from raydc.spec.study import load_study

    return load_study(shipped_studies.find(study), settings=settings or [], smoke=smoke)


def run(
    study: StudyArgument,
    directory: OutFolder = None,
    address: Address = None,
    tracking_uri: TrackingUri = None,
    store: StoreUri = None,
    settings: Settings = None,
    smoke: Smoke = False,
    download: Download = False,
    no_reuse: Annotated[
        bool, typer.Option("--no-reuse", help="Do not reuse results of other studies.")
    ] = False,
    no_report: Annotated[bool, typer.Option("--no-report", help="Do not write the report.")] = False,
) -> None:
    """Run a study, or resume it where it was interrupted."""
    with reported():
        loaded = load(study, settings, smoke)
        folder = directory or Path("runs") / loaded.name

        def finish(where: Path) -> None:
            from raydc.study.reporting import write

            write(str(where), None, store or loaded.store_uri)

        summary = _launched(
            loaded,
            folder,
            address=address,
            tracking_uri=tracking_uri,
            store_uri=store,
            download=download,
            reuse=not no_reuse,
            finish=None if no_report else finish,
        )
    print_summary(summary)
    raise typer.Exit(summary.exit_code)


def _launched(loaded: StudySpec, folder: Path, *, quiet: bool = False, **options: Any) -> Summary:
    """Run a study, with live progress unless `quiet`; exit with 130 if it is interrupted early."""
    from raydc.orchestration.progress import Silent
    from raydc.study import launch

    try:
        if quiet:
            return launch.run(loaded, folder, progress=Silent(), **options)
        with LiveProgress(out) as progress:
            return launch.run(loaded, folder, progress=progress, **options)
    except KeyboardInterrupt:
        err.print(
            f"interrupted; `raydc {plugins.options()}run {loaded.source} --out {folder}` resumes it",
            style="yellow",
        )
        raise typer.Exit(130) from None


def search_sentences(summary: Summary) -> list[str]:
    """Sentences on the result of a search; none for a study that is not a search."""
    if summary.search is None:
        return []
    from raydc.report.search_history import sentences

    return sentences(summary.search)


def print_summary(summary: Summary) -> None:
    say(
        f"{summary.study}: {summary.finished} of {summary.evaluations} evaluations finished"
        + (f", {summary.failed} failed" if summary.failed else "")
        + f" in {duration(summary.wall_seconds)}"
    )
    if summary.before or summary.taken_over:
        say(
            f"  {summary.run_now} run now, {summary.before} finished before, "
            f"{summary.taken_over} reused from other studies",
        )
    if summary.naive_forwards:
        from raydc.spec.plan import forwards_sentence

        say(f"  {forwards_sentence(summary.forwarded, summary.forwards, summary.naive_forwards)}")
    for sentence in search_sentences(summary):
        say(f"  {sentence}")
    stages = ", ".join(f"{n} {duration(s)}" for n, s in summary.stage_seconds.items() if s >= 1)
    if stages:
        say(f"  stages: {stages}")
    if summary.efficiency is not None:
        say(
            f"  parallel efficiency: {summary.efficiency:.2f} ({summary.student_seconds:.0f} student "
            f"seconds, {summary.workers} workers, {summary.stage_seconds['evaluations']:.0f} s)"
        )
    again = f"raydc {plugins.options()}run {summary.out / 'study.yaml'} --out {summary.out}"
    if summary.interrupted:
        say(f"  interrupted; `{again}` resumes it")
    elif summary.stopped is not None:
        say(f"  stopped: {summary.stopped}; `{again}` resumes it")
    elif summary.failed:
        more = "" if summary.search is not None else f"; `{again}` retries them"
        say(f"  `raydc results {summary.out}` shows why{more}")
    if summary.behind:
        say(
            f"  {summary.behind} results are missing in {summary.tracker}; "
            f"`raydc sync {summary.out}` writes them"
        )
    if (report := summary.out / "report.html").exists():
        say(f"  report: {report}")


def reproduce(
    name: Annotated[
        str,
        typer.Argument(
            help="A paper's table or claim, such as label-worth-table2.",
            autocompletion=completing.reproductions,
        ),
    ],
    cells: Annotated[
        list[str] | None,
        typer.Option("--cells", help="Cells or claims to run, such as ipc-10 (default: all)."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Plot the differences of the claims to this file: .svg, .pdf or .png.")
    ] = None,
    directory: OutFolder = None,
    address: Address = None,
    tracking_uri: TrackingUri = None,
    store: StoreUri = None,
    settings: Settings = None,
    smoke: Smoke = False,
    download: Download = False,
    as_json: AsJson = False,
) -> None:
    """Run a paper's table or claim and print the results next to the paper's."""
    with reported():
        from raydc.report import reproduce as reproductions
        from raydc.tracking.rows import load_rows

        table = reproductions.load(name).chosen(cells or [])
        grid = [] if smoke else [f"grid={table.grid()}"]
        loaded = load(table.study, [*grid, *(settings or [])], smoke)
        folder = directory or Path("runs") / loaded.name
        summary = _launched(
            loaded,
            folder,
            quiet=as_json,
            address=address,
            tracking_uri=tracking_uri,
            store_uri=store,
            download=download,
        )
        if not as_json:
            print_summary(summary)
        # The folder may also have results of a smoke run or of other settings.
        results = [row for row in load_rows(str(folder)) if row["evaluation_id"] in summary.ids]
        if plot is not None:
            _save_figure(reproductions.differences(table, results), plot)
        rows, verdicts = reproductions.compare(table, results), reproductions.verdicts(table, results)

        emit([*rows, *verdicts], as_json, lambda: _show_reproduction(table, rows, verdicts, smoke))
    raise typer.Exit(summary.exit_code)


def _show_reproduction(
    table: Reproduction, rows: list[dict[str, Any]], verdicts: list[dict[str, Any]], smoke: bool
) -> None:
    if rows:
        show_table(f"{table.source}, {table.measure}", [_cell(row) for row in rows])
    if verdicts:
        show_table(f"{table.source}, claims", [_verdict(row) for row in verdicts])
    for reason in table.not_here:
        say(f"not reproduced: {reason}")
    if smoke:
        say("this was a smoke run; do not compare its numbers with the paper's")


def _save_figure(data: Intervals, file: Path) -> None:
    from raydc.report import drawing

    try:
        drawing.save(drawing.intervals(data), file)
    except (OSError, ValueError) as error:
        raise InputError(f"--plot is {str(file)!r}, which cannot be written: {error}") from None


def _cell(row: Mapping[str, Any]) -> dict[str, Any]:
    """A cell of a paper's table, as the terminal shows it."""
    return {
        "cell": row["cell"],
        "paper": _with_spread(row["paper"], row["paper_std"]),
        "measured": _with_spread(row["measured"], row["std"]),
        "replicates": row["replicates"],
        "difference": signed(row["difference"]),
        "inside two standard errors": row["inside_two_standard_errors"],
        "teacher": _with_spread(row["teacher_test_acc"], None),
        "paper's teacher": _with_spread(row["paper_teacher"], None),
    }


def _verdict(row: Mapping[str, Any]) -> dict[str, Any]:
    """A paper's claim, as the terminal shows it."""
    difference = signed(row["difference"])
    if row["difference_low"] is not None:
        difference += f" [{100 * row['difference_low']:.1f}, {100 * row['difference_high']:.1f}]"
    return {
        "claim": row["says"],
        "more": _with_spread(row["more"], None),
        "less": _with_spread(row["less"], None),
        "difference": difference,
        "replicates": row["replicates"],
        "holds": {True: "yes", False: "no", None: "undecided"}[row["holds"]],
    }


def _with_spread(value: float | None, std: float | None) -> str:
    if value is None:
        return "-"
    return f"{100 * value:.1f}" + (f" +- {100 * std:.1f}" if std is not None else "") + " %"


def plan(
    study: StudyArgument,
    directory: OutFolder = None,
    store: StoreUri = None,
    settings: Settings = None,
    smoke: Smoke = False,
    download: Download = False,
    export: Annotated[
        Path | None,
        typer.Option(help="Write the evaluations as JSON lines for python -m raydc.evaluate."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print what a study would run and store, without starting it."""
    with reported():
        loaded = load(study, settings, smoke)
        from raydc.study import planning

        planned = planning.plan_study(loaded, directory, store, download)
        if export is not None:
            if loaded.search is not None:
                raise InputError(
                    f"--export is {str(export)!r}, but {loaded.source} is a search, whose points are not "
                    "known before they are asked; export a study with a grid"
                )
            planning.export(planned, export)

        def show() -> None:
            if planned.without_data is not None:
                say(f"the data are missing here, so this is counted without them: {planned.without_data}")
            show_table(loaded.name, planned.rows())
            if export is not None:
                say(f"{len(planned.plan.evaluations)} evaluations written to {export}")

        emit(planned.rows(), as_json, show)


def sync(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A study's folder.")],
    imported: Annotated[
        Path | None, typer.Option("--import", help="results.jsonl of python -m raydc.evaluate.")
    ] = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Bring the study's tracker, such as MLflow, up to date with the ledger."""
    with reported():
        from raydc.study.sync import sync as synchronise

        done = synchronise(directory, tracking_uri, imported)
    results = f"{done.rows} results in the ledger ({done.imported} imported now)"
    if done.tracker is None:
        say(f"{results}; the study has no tracker (tracking.kind is none), so nothing else was written")
    else:
        say(f"{results}, {done.behind} missing in {done.tracker}")
    raise typer.Exit(4 if done.behind else 0)
