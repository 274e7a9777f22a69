"""raydc report: the page of a finished study, and its figures as files."""

from __future__ import annotations

from tests.shell import Shell


def test_the_report_and_its_figures(finished: Shell) -> None:
    said = finished("report", "runs/tiny", "--figures", "paper", "--format", "svg", "--format", "pdf").stdout
    assert "report: runs/tiny/report.html" in said
    names = {path.name for path in (finished.folder / "paper").iterdir()}
    assert {"accuracy.svg", "accuracy.pdf", "laws.svg", "labels.pdf", "images-random-IPC-8.png"} <= names
    text = (finished.folder / "runs" / "tiny" / "report.html").read_text()
    for part in ("curves", "labels", "laws", "frontier", "worth", "compare", "images", "results", "again"):
        assert f'<section id="{part}">' in text
    uri = f"sqlite:///{finished.folder / 'runs' / 'tiny'}/mlflow.db"
    finished("report", "mlflow:tiny", "--tracking-uri", uri)
    assert '<section id="curves">' in (finished.folder / "tiny-report.html").read_text()


def test_bad_options_are_refused(finished: Shell) -> None:
    said = finished("report", "runs/tiny", "--format", "jpg", code=2).stderr
    assert "--format is 'jpg', but must be png, svg or pdf" in said


def test_a_study_that_has_ended_is_said_to_be_done(finished: Shell) -> None:
    said = finished("watch", "runs/tiny").stdout
    assert said.startswith("tiny: 24/24 ended, best ")
    assert said.rstrip().endswith("done")
    uri = f"sqlite:///{finished.folder / 'runs' / 'tiny'}/mlflow.db"
    assert finished("watch", "mlflow:tiny", "--tracking-uri", uri).stdout == said
