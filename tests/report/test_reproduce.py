"""Reproductions: every shipped one names rows that exist, and the comparison is fair arithmetic."""

from __future__ import annotations

import pytest

from raydc.errors import InputError
from raydc.report import reproduce
from raydc.report.reproduce import Cell, Reproduction
from raydc.spec import shipped_studies
from raydc.spec.point import flat_value
from raydc.spec.result import spec_columns
from raydc.spec.study import load_study


@pytest.mark.parametrize("name", reproduce.names())
def test_a_shipped_reproduction_asks_for_evaluations_of_its_study(name: str) -> None:
    table = reproduce.load(name)
    study = load_study(shipped_studies.find(table.study), settings=[f"grid={table.grid()}"])
    whole = {e.to_json() for e in load_study(shipped_studies.find(table.study)).evaluations()}
    assert {e.to_json() for e in study.evaluations()} <= whole
    assert table.cells or table.claims
    assert all(0 < cell.paper < 1 for cell in table.cells)
    sides = [cell.where for cell in table.cells]
    sides += [side for claim in table.claims for c in claim.contrasts for side in (c.more, c.less)]
    for side in sides:
        rows = [spec_columns(e) for e in study.evaluations()]
        answers = [row for row in rows if all(row.get(k) == flat_value(v) for k, v in side.items())]
        assert len(answers) == len(study.seeds) > 1


def test_a_claim_can_be_chosen_and_is_judged() -> None:
    table = reproduce.load("label-swap").chosen(["second-rank"])
    assert table.grid() == '[{}, {"labels.swap_rank": [2]}]'
    results = [
        {"status": "finished", "seed": s, "test_acc": a - 0.1 * (k is not None), "labels.swap_rank": k}
        for s, a in enumerate([0.5, 0.52])
        for k in (None, 2)
    ]
    (verdict,) = reproduce.verdicts(table, results)
    assert verdict["difference"] == pytest.approx(0.1)
    assert (verdict["holds"], verdict["replicates"]) == (True, 2)
    (nothing,) = reproduce.verdicts(table, [])
    assert (nothing["difference"], nothing["replicates"], nothing["holds"]) == (None, 0, None)


def test_the_papers_numbers_of_table_2() -> None:
    table = reproduce.load("label-worth-table2")
    assert [cell.paper for cell in table.cells] == pytest.approx([0.211, 0.463, 0.621])
    assert [cell.paper_teacher for cell in table.cells] == pytest.approx([0.56, 0.651, 0.749])
    assert [cell.name for cell in table.chosen(["ipc-10"]).cells] == ["ipc-10"]
    with pytest.raises(InputError, match="did you mean ipc-1"):
        table.chosen(["ipc-11"])
    with pytest.raises(InputError, match="it must be"):
        reproduce.load("table-9")


def test_short_names_and_results_without_the_measure() -> None:
    assert reproduce.load("swap").name == "label-swap"
    assert {reproduce.load(short).name for short in reproduce.SHORT} <= set(reproduce.names())
    table = reproduce.load("label-worth-table2").chosen(["ipc-1"])
    cell = {"images.ipc": 1, "labels.teacher_epoch": 20}
    (found,) = reproduce.compare(table, [{"status": "finished", "best_test_acc": None, **cell}])
    assert (found["measured"], found["replicates"]) == (None, 0)


def rows(values: list[float], **keys: object) -> list[dict[str, object]]:
    return [{"status": "finished", "test_acc": value, "teacher_test_acc": 0.5, **keys} for value in values]


def test_a_cell_is_compared_by_both_standard_errors() -> None:
    cell = Cell("a", {"images.ipc": 1}, paper=0.30, paper_std=0.02)
    table = Reproduction("x", "x", "x", "test_acc", 4, (cell,), (), ())
    (near,) = reproduce.compare(table, rows([0.30, 0.32, 0.34], **{"images.ipc": 1}))
    # sd 0.02 / sqrt 3 and 0.02 / sqrt 4: the standard error is 0.0153, and the difference 0.02.
    assert near["measured"] == pytest.approx(0.32)
    assert near["difference"] == pytest.approx(0.02)
    assert near["inside_two_standard_errors"] is True
    (far,) = reproduce.compare(table, rows([0.34, 0.36, 0.38], **{"images.ipc": 1}))
    assert far["inside_two_standard_errors"] is False
    (one,) = reproduce.compare(table, rows([0.30], **{"images.ipc": 1}))
    assert one["inside_two_standard_errors"] is None
    (none,) = reproduce.compare(table, rows([0.30], **{"images.ipc": 2}))
    assert none["measured"] is None
    assert none["replicates"] == 0
