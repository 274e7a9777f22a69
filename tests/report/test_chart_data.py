"""The charts in a real browser: every one is drawn, without an error, and answers to the reader."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from raydc.report.html import write_report
from tests.report.test_html import charts_of, kept_rows, some_rows

pytestmark = pytest.mark.browser

READER = """
const said = document.body.appendChild(document.createElement("pre"));
const say = (name, value) => { said.textContent += `${name}=${value}\\n`; };
const figure = document.querySelector("#curves figure");
const svg = figure.querySelector(".chart > svg");
const tip = figure.querySelector(".tip");
const event = (name, x, y) => {
  const { left, top } = svg.getBoundingClientRect();
  svg.dispatchEvent(new PointerEvent(name, { bubbles: true, clientX: left + x, clientY: top + y }));
};
const key = (name) => svg.dispatchEvent(new KeyboardEvent("keydown", { key: name, bubbles: true }));
svg.setPointerCapture = () => {};  // made events have no pointer
const [, x, y] = svg.querySelector(".points").getAttribute("d").match(/^M([\\d.]+),([\\d.]+)/).map(Number);
event("pointermove", x + 3, y + 3);
say("hover", [...tip.children].map((line) => line.textContent).join("; "));
event("pointermove", 5, 5);
say("away", tip.hidden);
key("ArrowRight");
key("ArrowRight");
say("keyboard", tip.children[1].textContent);
const buttons = figure.querySelectorAll(".legend button");
say("series", buttons.length);
say("points", svg.dataset.points);
buttons[0].click();
say("hidden", `${svg.dataset.points} ${buttons[0].getAttribute("aria-pressed")}`);
buttons[0].click();
const reset = figure.querySelector(".tools button:last-child");
say("resettable", !reset.hidden);
event("pointerdown", x - 10, y - 30);
event("pointermove", x + 40, y + 30);
event("pointerup", x + 40, y + 30);
say("zoomed", `${svg.dataset.points} ${!reset.hidden}`);
reset.click();
say("reset", svg.dataset.points);
const before = getComputedStyle(document.body).backgroundColor;
document.getElementById("theme").click();
say("theme", before !== getComputedStyle(document.body).backgroundColor);
"""


def opened(page: Path, folder: Path) -> tuple[str, str]:
    """(the page after its scripts have run, what the browser logged on its console)."""
    ran = subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'chromium'}",
         "--enable-logging=stderr", "--v=0", "--virtual-time-budget=5000", "--window-size=1000,800",
         "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return ran.stdout, "\n".join(line for line in ran.stderr.splitlines() if "CONSOLE" in line)


@pytest.mark.parametrize("make", [some_rows, kept_rows])
def test_every_chart_is_drawn_without_an_error(make: object, tmp_path: Path) -> None:
    path = write_report(make(), tmp_path / "report.html", None)  # type: ignore[operator]
    page, errors = opened(path, tmp_path)
    assert errors == ""
    drawn = [int(count) for count in re.findall(r'data-points="(\d+)"', page)]
    assert len(drawn) == len(charts_of(path.read_text()))
    for count, chart in zip(drawn, charts_of(path.read_text()), strict=True):
        parts = [s["points"] for s in chart.get("series", []) if "points" in s]
        cells = [v for row in chart.get("values", []) for v in row if v is not None]
        assert count == len(cells) + sum(len(part["x"]) for part in parts), chart["title"]


def test_names_of_results_run_nothing(tmp_path: Path) -> None:
    bad = '</script><script>console.error("run")</script><img src=x onerror=console.error(1)>'
    rows = [{**row, "study": bad, "images.method": f"{bad}{row['seed']}"} for row in some_rows()]
    path = write_report(rows, tmp_path / "report.html", None, command=bad)
    page, errors = opened(path, tmp_path)
    assert errors == ""
    assert page.count("data-points=") == len(charts_of(path.read_text())) > 0


def test_charts_answer_to_the_reader(tmp_path: Path) -> None:
    path = write_report(some_rows(), tmp_path / "report.html", None)
    path.write_text(path.read_text().replace("</body>", f"<script>{READER}</script></body>"))
    page, errors = opened(path, tmp_path)
    assert errors == ""
    said = dict(re.findall(r"(?:^|<pre>)(\w+)=(.*)$", page, re.MULTILINE))
    assert re.fullmatch(
        r"hard; images per class: 1; test accuracy: [\d.]+ % \[[\d.]+ %, [\d.]+ %\]; 3 replicates",
        said["hover"],
    )
    assert said["away"] == "true"
    assert said["keyboard"] == "images per class: 2"
    assert (said["series"], said["points"]) == ("2", "12")
    assert said["hidden"] == "6 false"
    assert said["resettable"] == "false"
    count, resettable = said["zoomed"].split()
    assert 0 < int(count) < 12
    assert resettable == "true"
    assert said["reset"] == "12"
    assert said["theme"] == "true"
