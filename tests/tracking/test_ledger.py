"""The ledger survives kills and flipped bits, and never loses a finished row."""

from __future__ import annotations

from pathlib import Path

import pytest

from raydc.tracking.ledger import FILE, Ledger, read_rows


def row(name: str, status: str = "finished", **values: object) -> dict[str, object]:
    return {"evaluation_id": name, "status": status, "test_acc": 0.1 + 0.2, **values}


def test_rows_are_read_back_exactly(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.append([row("a"), row("b", note='quotes " and } braces')])
        assert read_rows(tmp_path) == ledger.rows
    with Ledger(tmp_path) as ledger:
        assert ledger.rows == {"a": row("a"), "b": row("b", note='quotes " and } braces')}


@pytest.mark.parametrize("cut", [1, 10, 40])
def test_a_torn_line_is_cut_off_and_written_again(tmp_path: Path, cut: int) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.append([row("a"), row("b")])
    path = tmp_path / FILE
    path.write_bytes(path.read_bytes()[:-cut])
    assert set(read_rows(tmp_path)) == {"a"}
    with Ledger(tmp_path) as ledger:
        assert ledger.finished() == {"a"}
        ledger.append([row("b")])
    assert set(read_rows(tmp_path)) == {"a", "b"}


def test_a_flipped_bit_costs_its_row_only(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.append([row("a"), row("b"), row("c")])
    path = tmp_path / FILE
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b"0.30000000000000004", b"0.70000000000000004")
    path.write_bytes(b"".join(lines))
    assert set(read_rows(tmp_path)) == {"a", "c"}


def test_a_finished_row_stands_and_a_failed_one_gives_way(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.append([row("a", "failed"), row("b")])
        ledger.append([row("a"), row("b", "failed")])
        assert ledger.finished() == {"a", "b"}
    assert {r["status"] for r in read_rows(tmp_path).values()} == {"finished"}
