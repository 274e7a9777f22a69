"""What raydc compare writes: Markdown and LaTeX as they go into a paper."""

from __future__ import annotations

from raydc.analysis.compare import compare
from raydc.analysis.sides import levels
from raydc.report.comparison import comparison_tables
from raydc.report.tables import Table, latex, markdown
from tests.analysis.test_compare import SMALL

MARKDOWN = """\
## Comparison

Compared: images.method, by test_acc (higher is better, differences in points), replicates paired by seed. \
2 comparisons of configurations; 95 % intervals are Student's t from paired differences pooled over the \
configurations of a level; p-values are corrected by Holm in each table, and a difference counts (*) \
below 0.05.

| level | baseline | difference | 95 % interval | p | winner | configurations | pairs |
| --- | --- | --- | --- | --- | --- | --- | --- |
| el2n | random | +10.8 * | [+1.8, +19.9] | 0.032 | el2n | 2 | 5 |

## Winner at each IPC

Against random, over the configurations of each IPC: the winner and the difference; tie: not significant.

| level | IPC 1 | IPC 10 |
| --- | --- | --- |
| el2n | el2n +16.7 | tie +5.0 |

## Configurations

Each matched configuration separately.

| images.ipc | level | baseline | baseline mean | level mean | difference | 95 % interval | p | pairs |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
| 1 | el2n | random | 60.0 | 76.7 | +16.7 * | [+5.2, +28.1] | 0.038 | 3 |
| 10 | el2n | random | 80.0 | 85.0 | +5.0 | [-9.0, +19.0] | 0.339 | 2 |
"""

LATEX = r"""\begin{table}
\caption{50 \% \& more. a\_b}
\begin{tabular}{ll}
\toprule
x & y \\
\midrule
{[}1, 2] & \textless{} 0.001 \\
\bottomrule
\end{tabular}
\end{table}
"""


def test_markdown() -> None:
    found = compare(levels(SMALL, ["images.method"]), by=["images.method"])
    assert markdown(comparison_tables(found)) == MARKDOWN


def test_latex_is_escaped() -> None:
    table = Table("50 % & more", "a_b", ("x", "y"), (("[1, 2]", "< 0.001"),))
    assert latex([table]) == LATEX


def test_a_pipe_stays_in_its_cell() -> None:
    assert r"| a\|b |" in markdown([Table("t", "n", ("x",), (("a|b",),))])
