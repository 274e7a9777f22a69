"""The report: whole, self-contained, and harmless whatever the results say."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from raydc.errors import InputError
from raydc.report.html import write_report
from tests.analysis.test_laws import power, rows


def some_rows() -> list[dict[str, object]]:
    found = rows("hard", power(0.8, 0.5, 0.5), noise=0.01)
    for epoch in (1, 30):
        for temperature in (1.0, 4.0):
            found += rows(
                "soft",
                power(0.8, 0.4, 0.5),
                noise=0.01,
                labels__temperature=temperature,
                labels__teacher_epoch=epoch,
            )
    return found


class Outside(HTMLParser):
    """Collects everything that a page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "data", "xlink:href") and value and tag != "a":
                self.loads.append(value)


def test_the_report_has_every_part_and_loads_nothing(tmp_path: Path) -> None:
    path = write_report(some_rows(), tmp_path / "report.html", None, "raydc run x")
    text = path.read_text()
    page = Outside()
    page.feed(text)
    assert [load for load in page.loads if not load.startswith(("#", "data:"))] == []
    assert "url(http" not in text
    for part in ("summary", "curves", "laws", "labels", "frontier", "images", "tables"):
        assert f'<section id="{part}">' in text
    assert page.tags.count("svg") >= 4
    for title in ("Laws", "Worth", "Pareto frontier", "Results"):
        assert f"<h3>{title}</h3>" in text
    assert "What labels are worth:" in text
    assert re.search(r"do as well as [\d.]+ \[[\d.]+, ", text)


def kept_rows() -> list[dict[str, object]]:
    """Two teacher epochs; what k brings is known, and hard labels are there too."""
    found = rows("hard", power(0.8, 0.5, 0.5), noise=0.002)
    for epoch, limit in ((1, 0.8), (30, 0.9)):
        for k in (1, 2, 4, 10):
            found += rows(
                "soft",
                power(limit, 0.5 * k**-0.4, 0.5),
                noise=0.002,
                labels__top_k=k,
                labels__teacher_epoch=epoch,
            )
    return found


def test_a_study_of_images_and_knowledge_gets_its_sections(tmp_path: Path) -> None:
    text = write_report(kept_rows(), tmp_path / "report.html", None).read_text()
    for part in ("joint", "envelope"):
        assert f'<section id="{part}">' in text
    for title in ("Joint laws", "What twice the label entries are worth", "Frontier over images"):
        assert f"<h3>{title}</h3>" in text
    assert "a - f n^-c k^-e" in text
    assert "upper envelope" in text
    assert text.count("kept entries 10") == 2
    assert re.search(r"10 images a class with 2 kept entries do as well as [\d.]+ \[[\d.]+, ", text)


def test_a_study_of_one_kind_of_label_has_no_such_sections(tmp_path: Path) -> None:
    text = write_report(rows("hard", power(0.8, 0.5, 0.5)), tmp_path / "report.html", None).read_text()
    assert 'id="joint"' not in text
    assert 'id="envelope"' not in text


def test_what_results_say_is_escaped(tmp_path: Path) -> None:
    bad = some_rows()
    for row in bad:
        row["study"] = "<script>alert(1)</script>"
        row["images.method"] = "<img src=x onerror=alert(1)>"
    bad.append({**bad[0], "evaluation_id": "x", "status": "failed", "error": "<script>boom</script>"})
    text = write_report(bad, tmp_path / "report.html", None).read_text()
    assert "<script>" not in text
    assert "<img src=x" not in text
    assert "&lt;script&gt;boom" in text


def test_methods_with_random_counterparts_are_ranked(tmp_path: Path) -> None:
    method = [{**row, "images.method": "el2n", "test_acc": row["test_acc"] + 0.1} for row in some_rows()]
    text = write_report([*some_rows(), *method], tmp_path / "report.html", None).read_text()
    assert "<h3>DD-Ranking</h3>" in text
    assert "10.0 % [10.0, 10.0]" in text
    alone = write_report(method, tmp_path / "alone.html", None).read_text()
    assert "DD-Ranking" not in alone


def test_one_replicate_is_said_to_have_no_intervals(tmp_path: Path) -> None:
    one = [row for row in some_rows() if row["seed"] == 0]
    text = write_report(one, tmp_path / "report.html", None).read_text()
    assert "With one replicate there are no intervals" in text


def test_nothing_finished_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no finished evaluation"):
        write_report([{**some_rows()[0], "status": "failed"}], tmp_path / "report.html", None)
