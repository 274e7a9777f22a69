"""The command line: `raydc COMMAND`. Exit codes: 0, 2 bad input, 3 some failed, 4 MLflow is behind,
130 interrupted."""

from __future__ import annotations

import csv
import json
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from raydc import __version__, plugins, shipped
from raydc.console import LiveProgress, duration, size
from raydc.errors import InputError, TrackingError, one_of

if TYPE_CHECKING:
    from raydc.launch import Summary
    from raydc.spec.study import Study

app = typer.Typer(
    help="Dataset distillation and pruning experiments at scale.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
PIPE_WIDTH = 160
"""Columns of a table where there is no terminal to measure."""
out = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)
err = Console(stderr=True)

StudyArgument = Annotated[str, typer.Argument(help="A study file, or the name of one that comes with raydc.")]
Where = Annotated[str, typer.Argument(metavar="DIR", help="A study's folder, or mlflow:EXPERIMENT.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a key, such as base.train.steps=50."),
]
Smoke = Annotated[bool, typer.Option("--smoke", help="Merge the study's own smoke block: a run of seconds.")]
TrackingUri = Annotated[str | None, typer.Option(help="MLflow tracking URI.")]
StoreUri = Annotated[
    str | None,
    typer.Option("--store", help="Folder or URI of the store.", envvar="RAYDC_STORE"),
]
OutFolder = Annotated[Path | None, typer.Option("--out", help="Folder of the results (default: runs/NAME).")]
Address = Annotated[str | None, typer.Option(help="A running Ray cluster; default: start one here.")]
Download = Annotated[bool, typer.Option("--download", help="Fetch a named dataset that is not here.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON array of row objects.")]


def say(text: str) -> None:
    """One line for the user, as it stands."""
    out.print(text, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def reported() -> Iterator[None]:
    """Print what a user can mend as one sentence, and exit with 2."""
    try:
        yield
    except (InputError, TrackingError) as error:
        err.print(f"error: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(2) from None


def emit(rows: Sequence[dict[str, Any]], as_json: bool, show: Callable[[], None]) -> None:
    """Rows as a JSON array with null for what is not a number, or shown by `show`."""
    if as_json:
        sys.stdout.write(json.dumps([_plain(row) for row in rows], indent=1, allow_nan=False) + "\n")
    else:
        show()


def _plain(value: Any) -> Any:
    """What JSON can hold: NaN and infinity become null, tuples lists, NumPy numbers plain ones."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not float("-inf") < value < float("inf"):
        return None
    return value


def show_table(title: str, rows: Sequence[dict[str, Any]], columns: Sequence[str] = ()) -> None:
    """Rows as a table; a terminal gets borders, a pipe gets the same text without colour."""
    names = list(columns) or (list(rows[0]) if rows else [])
    table = Table(title=title, title_justify="left", header_style="bold")
    for name in names:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row.get(name)) for name in names))
    out.print(table)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def _load(study: str, settings: list[str] | None, smoke: bool) -> Study:
    from raydc.spec.study import load_study

    return load_study(shipped.find(study), settings=settings or [], smoke=smoke)


@app.callback(invoke_without_command=True)
def _main(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Say more about what goes on.")] = False,
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


@app.command()
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
        bool, typer.Option("--no-reuse", help="Do not take over results of other studies.")
    ] = False,
    no_report: Annotated[bool, typer.Option("--no-report", help="Do not draw the report.")] = False,
) -> None:
    """Run a study, or go on with it where it was interrupted."""
    with reported():
        loaded = _load(study, settings, smoke)
        from raydc import launch

        folder = directory or Path("runs") / loaded.name

        def finish(where: Path) -> None:
            _report(str(where), None, store or loaded.store_uri)

        try:
            with LiveProgress(out) as progress:
                summary = launch.run(
                    loaded,
                    folder,
                    address=address,
                    tracking_uri=tracking_uri,
                    store_uri=store,
                    download=download,
                    reuse=not no_reuse,
                    progress=progress,
                    finish=None if no_report else finish,
                )
        except KeyboardInterrupt:
            err.print(f"interrupted; `raydc run {study} --out {folder}` goes on", style="yellow")
            raise typer.Exit(130) from None
    _print_summary(summary)
    raise typer.Exit(summary.exit_code)


def _print_summary(summary: Summary) -> None:
    say(
        f"{summary.study}: {summary.finished} of {summary.evaluations} evaluations finished"
        + (f", {summary.failed} failed" if summary.failed else "")
        + f" in {duration(summary.wall_seconds)}"
    )
    if summary.before or summary.taken_over:
        say(
            f"  {summary.run_now} run now, {summary.before} finished before, "
            f"{summary.taken_over} taken over from other studies",
        )
    if summary.naive_forwards:
        say(
            f"  labels: {summary.forwarded:,} images forwarded now, {summary.forwards:,} in the study; "
            f"labelling anew for every evaluation would forward {summary.naive_forwards:,}"
        )
    stages = ", ".join(f"{n} {duration(s)}" for n, s in summary.stage_seconds.items() if s >= 1)
    if stages:
        say(f"  stages: {stages}")
    if summary.efficiency is not None:
        say(
            f"  parallel efficiency: {summary.efficiency:.2f} ({summary.student_seconds:.0f} student "
            f"seconds, {summary.workers} workers, {summary.stage_seconds['evaluations']:.0f} s)"
        )
    again = f"raydc run {summary.out / 'study.yaml'} --out {summary.out}"
    if summary.interrupted:
        say(f"  interrupted; `{again}` goes on")
    elif summary.failed:
        say(
            f"  `raydc results {summary.out}` shows why; `{again}` tries them again",
        )
    if summary.behind:
        say(f"  MLflow lacks {summary.behind} results; `raydc sync {summary.out}` writes them")
    if (report := summary.out / "report.html").exists():
        say(f"  report: {report}")


@app.command()
def reproduce(
    name: Annotated[str, typer.Argument(help="A paper's table, such as label-worth-table2.")],
    cells: Annotated[
        list[str] | None, typer.Option("--cells", help="Cells to run, such as ipc-10 (default: all).")
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
    """Run a paper's table and print it beside the paper's numbers."""
    with reported():
        from raydc import launch
        from raydc import reproduce as reproductions
        from raydc.orchestration.progress import Silent
        from raydc.rows import load_rows

        table = reproductions.load(name).chosen(cells or [])
        grid = [] if smoke else [f"grid={table.grid()}"]
        loaded = _load(table.study, [*grid, *(settings or [])], smoke)
        folder = directory or Path("runs") / loaded.name
        options: dict[str, Any] = {
            "address": address,
            "tracking_uri": tracking_uri,
            "store_uri": store,
            "download": download,
        }
        if as_json:
            summary = launch.run(loaded, folder, progress=Silent(), **options)
        else:
            with LiveProgress(out) as progress:
                summary = launch.run(loaded, folder, progress=progress, **options)
            _print_summary(summary)
        rows = reproductions.compare(table, load_rows(str(folder)))
        shown = [
            {
                "cell": row["cell"],
                "paper": _with_spread(row["paper"], row["paper_std"]),
                "measured": _with_spread(row["measured"], row["std"]),
                "replicates": row["replicates"],
                "difference": _signed(row["difference"]),
                "inside two standard errors": row["inside_two_standard_errors"],
                "teacher": _with_spread(row["teacher_test_acc"], None),
                "paper's teacher": _with_spread(row["paper_teacher"], None),
            }
            for row in rows
        ]

        def show() -> None:
            show_table(f"{table.source}, {table.measure}", shown)
            for reason in table.not_here:
                say(f"not run here: {reason}")
            if smoke:
                say("this was a smoke run: its numbers say nothing about the paper's")

        emit(rows, as_json, show)
    raise typer.Exit(summary.exit_code)


def _with_spread(value: float | None, std: float | None) -> str:
    if value is None:
        return "-"
    return f"{100 * value:.1f}" + (f" +- {100 * std:.1f}" if std is not None else "") + " %"


@app.command()
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
    """Count what a study takes, without starting it."""
    with reported():
        loaded = _load(study, settings, smoke)
        from raydc import planning

        planned = planning.plan_study(loaded, directory, store, download)
        if export is not None:
            planning.export(planned, export)

        def show() -> None:
            if planned.without_data is not None:
                say(f"the data are not here, so this is counted without them: {planned.without_data}")
            show_table(loaded.name, planned.rows())
            if export is not None:
                say(f"{len(planned.plan.evaluations)} evaluations written to {export}")

        emit(planned.rows(), as_json, show)


@app.command()
def results(
    where: Where,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Write the whole table here.")] = None,
    tracking_uri: TrackingUri = None,
    as_json: AsJson = False,
) -> None:
    """The results table, also while a run is going."""
    with reported():
        from raydc.analysis.curves import varying_keys
        from raydc.result import columns
        from raydc.rows import load_rows

        rows = load_rows(where, tracking_uri)
        names = columns(rows)
        full = [{name: row.get(name) for name in names} for row in rows]
        if csv_file is not None:
            try:
                with csv_file.open("w", newline="", encoding="utf-8") as file:
                    writer = csv.DictWriter(file, names)
                    writer.writeheader()
                    writer.writerows(full)
            except OSError as error:
                raise InputError(
                    f"--csv is {str(csv_file)!r}, which cannot be written: {error.strerror}"
                ) from None
            err.print(f"{len(full)} rows written to {csv_file}")

        def show() -> None:
            shown = [
                *varying_keys(rows),
                "seed",
                "status",
                "test_acc",
                "val_acc",
                "teacher_test_acc",
            ]
            if any(row.get("error") for row in rows):
                shown.append("error")
            show_table(f"{len(rows)} results", full, shown)

        emit(full, as_json, show)


@app.command()
def fit(
    where: Where,
    x: Annotated[str, typer.Option(help="Column on the x axis.")] = "images.ipc",
    y: Annotated[str, typer.Option(help="Column on the y axis.")] = "test_acc",
    by: Annotated[
        list[str] | None, typer.Option(help="Keys that separate curves (default: all that vary).")
    ] = None,
    form: Annotated[
        str, typer.Option(help="power, exponential, logarithmic, or auto: the smallest AICc of each curve.")
    ] = "power",
    tracking_uri: TrackingUri = None,
    as_json: AsJson = False,
) -> None:
    """Scaling laws, such as y = a - b x^-c, with 95 % intervals."""
    with reported():
        from raydc.analysis.curves import curves
        from raydc.analysis.laws import FORMS, FORMULAS, Law, as_row
        from raydc.analysis.laws import fit as fit_law
        from raydc.report.html import interval
        from raydc.rows import load_rows

        if form not in ("auto", *FORMS):
            raise InputError(f"--form is {form!r}, but must be {one_of(('auto', *FORMS))}")
        fits = [fit_law(curve, form) for curve in curves(load_rows(where, tracking_uri), x, y, by)]
        if not fits:
            raise InputError(f"{where} has no finished evaluation yet; run the study first")
        shown: list[dict[str, Any]] = []
        for found in fits:
            if isinstance(found, Law):
                ends = {
                    "a": interval(found.a),
                    "b": interval(found.b),
                    "c": "-" if found.c is None else interval(found.c),
                }
                shown.append(
                    {
                        "curve": found.curve.label,
                        "form": found.form,
                        **ends,
                        "rmse": found.rmse,
                        "AICc": found.aicc,
                        "largest x": _signed(found.holdout),
                        "note": _spread(int(found.curve.counts.min())),
                    }
                )
            else:
                shown.append({"curve": found.curve.label, "note": f"no fit: {found.reason}"})
        title = f"{y} = {'law of ' + x if form == 'auto' else FORMULAS[form].format(x=x)}"
        names = ["curve", "form", "a", "b", "c", "rmse", "AICc", "largest x", "note"]
        emit([as_row(found) for found in fits], as_json, lambda: show_table(title, shown, names))


def _signed(error: float | None) -> str:
    """A prediction error in points."""
    return "-" if error is None else f"{100 * error:+.1f} points"


def _spread(replicates: int) -> str:
    return "one replicate: no intervals" if replicates == 1 else f"{replicates} replicates"


@app.command()
def plot(
    where: Where,
    x: Annotated[str, typer.Option(help="Column on the x axis.")] = "images.ipc",
    y: Annotated[
        str, typer.Option(help="Column on the y axis; test_acc_by_class:N is the accuracy of class N.")
    ] = "test_acc",
    by: Annotated[
        list[str] | None, typer.Option(help="Keys that separate lines (default: all that vary).")
    ] = None,
    file: Annotated[Path, typer.Option("--out", help="The figure: .svg, .pdf or .png.")] = Path("figure.svg"),
    tracking_uri: TrackingUri = None,
) -> None:
    """Draw a column over a key, with 95 % intervals."""
    with reported():
        from raydc.report import drawing
        from raydc.report.figures import line_figure
        from raydc.rows import load_rows

        figure = drawing.lines(line_figure(load_rows(where, tracking_uri), x, y, by))
        try:
            drawing.save(figure, file)
        except (OSError, ValueError) as error:
            raise InputError(f"--out is {str(file)!r}, which cannot be written: {error}") from None
    say(f"figure: {file}")


@app.command()
def frontier(where: Where, tracking_uri: TrackingUri = None, as_json: AsJson = False) -> None:
    """The Pareto frontier of accuracy over stored bytes."""
    with reported():
        from raydc.analysis.frontier import frontier as analyse
        from raydc.report.html import percent
        from raydc.rows import load_rows

        points = analyse(load_rows(where, tracking_uri))
        if not points:
            raise InputError(f"{where} has no finished evaluation yet; run the study first")
        rows = [
            {
                **point.key,
                "images_bytes": point.images_bytes,
                "labels_bytes": point.labels_bytes,
                "total_bytes": point.total_bytes,
                "test_acc": point.test_acc.value,
                "test_acc_low": point.test_acc.low,
                "test_acc_high": point.test_acc.high,
                "val_acc": point.val_acc,
                "replicates": point.test_acc.count,
                "on_frontier": point.on_frontier,
            }
            for point in points
        ]
        shown = [
            {
                "configuration": point.label,
                "images": size(point.images_bytes),
                "labels": size(point.labels_bytes),
                "test accuracy": percent(point.test_acc),
            }
            for point in points
            if point.on_frontier
        ]
        emit(
            rows,
            as_json,
            lambda: show_table(f"{len(shown)} of {len(points)} configurations", shown),
        )


@app.command()
def worth(where: Where, tracking_uri: TrackingUri = None, as_json: AsJson = False) -> None:
    """How many hard-labelled images a soft label replaces."""
    with reported():
        from raydc.analysis.curves import label_of
        from raydc.analysis.worth import worth as analyse
        from raydc.report.html import percent
        from raydc.rows import load_rows

        answers = analyse(load_rows(where, tracking_uri))
        rows = [
            {
                **item.group,
                "images.ipc": item.ipc,
                **item.labels,
                "chosen_by": item.chosen_by,
                "soft_acc": item.soft_acc.value,
                "soft_acc_low": item.soft_acc.low,
                "soft_acc_high": item.soft_acc.high,
                "hard_acc": item.hard_acc.value if item.hard_acc else None,
                "hard_ipc": item.hard_ipc,
                "hard_ipc_low": item.low,
                "hard_ipc_high": item.high,
                "beyond_ipc": item.beyond,
                "worth": item.ratio,
                "text": item.text(),
                "note": item.note or None,
            }
            for item in answers
        ]
        shown = [
            {
                "group": label_of(item.group),
                "IPC": item.ipc,
                "labels": label_of(item.labels),
                "soft": percent(item.soft_acc),
                "hard": percent(item.hard_acc),
                "hard-labelled images a class": item.text() if item.text() != "-" else item.note,
            }
            for item in answers
        ]
        emit(rows, as_json, lambda: show_table("What soft labels are worth", shown))


def _report(where: str, tracking_uri: str | None, store: str | None) -> Path:
    from raydc import folder
    from raydc.report.html import write_report
    from raydc.rows import MLFLOW, load_rows
    from raydc.store import open_store

    rows = load_rows(where, tracking_uri)
    if where.startswith(MLFLOW):
        name = where.removeprefix(MLFLOW)
        return write_report(rows, Path(f"{name}-report.html"), open_store(store) if store else None)
    directory = Path(where)
    uri = store or folder.store_of(directory)
    command = f"raydc run {directory / folder.STUDY} --out {directory}"
    return write_report(rows, directory / folder.REPORT, open_store(uri), command)


@app.command()
def report(where: Where, tracking_uri: TrackingUri = None, store: StoreUri = None) -> None:
    """One self-contained report.html with figures and tables."""
    with reported():
        path = _report(where, tracking_uri, store)
    say(f"report: {path}")


@app.command()
def sync(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A study's folder.")],
    imported: Annotated[
        Path | None, typer.Option("--import", help="results.jsonl of python -m raydc.evaluate.")
    ] = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Bring MLflow up to date with the ledger."""
    with reported():
        from raydc.sync import sync as synchronise

        done = synchronise(directory, tracking_uri, imported)
    say(f"{done.rows} results in the ledger ({done.imported} imported now), {done.behind} missing in MLflow")
    raise typer.Exit(4 if done.behind else 0)


@app.command("list")
def list_things(
    what: Annotated[
        str, typer.Argument(help="datasets, methods, labels, recipes, augmentations or studies.")
    ],
    as_json: AsJson = False,
) -> None:
    """What there is, one line each."""
    with reported():
        from raydc.spec import catalog

        registries: dict[str, Any] = {
            "datasets": catalog.DATASETS,
            "methods": catalog.METHODS,
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


@app.command()
def doctor(tracking_uri: TrackingUri = None, store: StoreUri = None, as_json: AsJson = False) -> None:
    """Check Python, torch, the device, Ray, MLflow and the disk."""
    from raydc.doctor import examine

    found = examine(tracking_uri, store or ".")
    rows = [{"check": f.check, "ok": f.ok, "found": f.found, "mend": None if f.ok else f.mend} for f in found]
    emit(rows, as_json, lambda: show_table("raydc doctor", rows))
    raise typer.Exit(0 if all(f.ok for f in found) else 2)


def main() -> None:
    """Entry point of the `raydc` command."""
    app()


if __name__ == "__main__":
    main()
