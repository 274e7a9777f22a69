"""Tables in a terminal: readable at 100 columns, numbers under each other."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from raydc.commands import terminal


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    text = io.StringIO()
    monkeypatch.setattr(terminal, "out", Console(file=text, width=100))
    return text


def test_words_and_numbers_are_not_broken(shown: io.StringIO) -> None:
    row = {
        "images.method": "herding",
        "images.ipc": 10,
        "images.prune": None,
        "labels.kind": "soft",
        "labels.teacher_epoch": 30,
        "labels.temperature": 4.0,
        "seed": 0,
        "test_acc": 0.68,
        "val_acc": 0.6532,
        "teacher_test_acc": 0.996,
    }
    terminal.show_table("results", [row, {**row, "test_acc": 0.5387, "teacher_test_acc": None}])
    lines = [line.rstrip() for line in shown.getvalue().splitlines() if line.strip()]
    assert max(map(len, lines)) <= 100
    assert [line.split() for line in lines[-2:]] == [
        ["herding", "10", "-", "soft", "30", "4", "0", "0.6800", "0.6532", "0.996"],
        ["herding", "10", "-", "soft", "30", "4", "0", "0.5387", "0.6532", "-"],
    ]
    assert len(lines) <= 1 + 3 + 1 + 2
    heading = "".join("".join(line.split()) for line in lines[1:-3])
    assert sorted(heading) == sorted("".join(row))


def test_no_rows_are_an_empty_table(shown: io.StringIO) -> None:
    terminal.show_table("0 results", [], ["seed", "labels.teacher_epoch"])
    assert "0 results" in shown.getvalue()


def test_numbers_of_very_different_size_stay_as_they_are(shown: io.StringIO) -> None:
    terminal.show_table("", [{"a": 1.5e-9}, {"a": 0.25}, {"a": float("nan")}, {"a": True}])
    assert [line.strip() for line in shown.getvalue().splitlines()[-5:] if line.strip()] == [
        "1.5e-09", "0.25", "nan", "yes"
    ]  # fmt: skip


def test_a_long_text_is_folded(shown: io.StringIO) -> None:
    terminal.show_table("", [{"name": "x", "note": "long words " * 20, "unbroken": "y" * 50}])
    assert max(len(line.rstrip()) for line in shown.getvalue().splitlines()) <= 100
    assert shown.getvalue().count("words") == 20
