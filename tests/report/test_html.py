"""The report: whole, self-contained, and harmless whatever the results say."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

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


def page_of(text: str) -> Outside:
    page = Outside()
    page.feed(text)
    return page


def charts_of(text: str) -> list[dict[str, Any]]:
    """The data of every chart on a page."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    found = re.findall(r'<script type="application/json">(.*?)</script>', text, re.DOTALL)
    return [json.loads(chart, parse_constant=refuse) for chart in found]


def test_the_report_has_every_part_and_loads_nothing(tmp_path: Path) -> None:
    path = write_report(some_rows(), tmp_path / "report.html", None, "raydc run x")
    text = path.read_text()
    page = page_of(text)
    assert [load for load in page.loads if not load.startswith(("#", "data:"))] == []
    assert "url(http" not in text
    order = [
        "summary",
        "curves",
        "heat",
        "laws",
        "frontier",
        "envelope",
        "worth",
        "compare",
        "results",
        "again",
    ]
    assert re.findall(r'<section id="(\w+)">', text) == order
    assert set(re.findall(r'<a href="#(\w+)">', text)) == set(order) - {"summary", "again"}
    assert page.tags.count("svg") >= 4
    for title in ("Laws", "Worth", "Pareto frontier"):
        assert f"<h3>{title}</h3>" in text
    assert "Missing: images (the compressed sets" in text
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
    for title in ("Joint laws", "What doubling the label entries is worth"):
        assert f"<h3>{title}</h3>" in text
    assert "a - f n^-c k^-e" in text
    assert "upper envelope" in text
    assert text.count("kept entries 10") == 2 * 2  # the static figures and the data of the charts
    assert re.search(r"10 images per class with 2 kept entries do as well as [\d.]+ \[[\d.]+, ", text)


def test_a_study_of_one_kind_of_label_has_no_such_sections(tmp_path: Path) -> None:
    text = write_report(rows("hard", power(0.8, 0.5, 0.5)), tmp_path / "report.html", None).read_text()
    assert 'id="joint"' not in text
    assert 'id="envelope"' not in text


def test_what_results_say_is_escaped(tmp_path: Path) -> None:
    bad = some_rows()
    for row in bad:
        row["study"] = "</script><script>alert(1)</script>"
        row["images.method"] = "<img src=x onerror=alert(1)>"
    bad.append({**bad[0], "evaluation_id": "x", "status": "failed", "error": "<script>boom</script>"})
    text = write_report(bad, tmp_path / "report.html", None).read_text()
    assert "<script>alert" not in text
    assert "<script>boom" not in text
    assert "<img src=x" not in text
    assert page_of(text).tags.count("script") == 2 + len(charts_of(text))
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


def test_charts_hold_what_the_figures_show(tmp_path: Path) -> None:
    text = write_report(some_rows(), tmp_path / "report.html", None).read_text()
    curves = next(c for c in charts_of(text) if c["title"] == "Accuracy over images per class")
    hard = next(s for s in curves["series"] if s["label"] == "hard")
    assert hard["points"]["x"] == [1, 2, 5, 10, 20, 50] == curves["x"]["places"]
    assert hard["points"]["count"] == [3] * 6
    assert hard["points"]["y"][0] == pytest.approx(0.3, abs=0.03)
    middle = [
        (low + high) / 2 for low, high in zip(hard["points"]["low"], hard["points"]["high"], strict=True)
    ]
    assert middle == pytest.approx(hard["points"]["y"], abs=1e-5)
    heats = [c for c in charts_of(text) if c["kind"] == "heat"]
    assert len(heats) == 6
    assert heats[0]["x"]["names"] == ["1", "4"]
    assert heats[0]["y"]["names"] == ["1", "30"]


def test_figures_are_saved_in_every_format(tmp_path: Path) -> None:
    write_report(
        some_rows(), tmp_path / "report.html", None, pictures=tmp_path / "a" / "b", formats=("svg", "pdf")
    )
    names = sorted(path.name for path in (tmp_path / "a" / "b").iterdir())
    assert {"accuracy.svg", "accuracy.pdf", "laws.svg", "frontier.pdf"} <= set(names)
    assert (tmp_path / "a" / "b" / "accuracy.pdf").read_bytes().startswith(b"%PDF")
    assert "images per class</text>" in (tmp_path / "a" / "b" / "accuracy.svg").read_text()


def test_thousands_of_configurations_stay_a_small_page(tmp_path: Path) -> None:
    many = [
        {**row, "images.method": "el2n", "labels.temperature": float(t), "evaluation_id": f"{t}{row['seed']}"}
        for t in range(1, 401)
        for row in rows("soft", power(0.8, 0.4, 0.5), noise=0.01, seeds=1)
    ]
    path = write_report([*many, *some_rows()], tmp_path / "report.html", None)
    text = path.read_text()
    assert path.stat().st_size < 2e6
    assert "more rows are in results.parquet" in text
    frontier = next(c for c in charts_of(text) if c["title"] == "Accuracy over stored bytes")
    assert sum(len(s["points"]["x"]) for s in frontier["series"] if "points" in s) > 2400
    assert "<image " in text  # the static figure of so many points is a picture
