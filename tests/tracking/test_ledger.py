"""The ledger survives kills and flipped bits, and never loses a finished row."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from raydc.errors import FolderError
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


def test_a_line_with_an_infinite_number_costs_its_row_only(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.append([row("a"), row("b")])
    path = tmp_path / FILE
    path.write_bytes(path.read_bytes().replace(b"0.30000000000000004", b"1e999", 1))
    assert set(read_rows(tmp_path)) == {"b"}


def test_a_finished_row_stands_and_a_failed_one_gives_way(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.append([row("a", "failed"), row("b")])
        ledger.append([row("a"), row("b", "failed")])
        assert ledger.finished() == {"a", "b"}
    assert {r["status"] for r in read_rows(tmp_path).values()} == {"finished"}


def test_rows_that_find_no_space_do_not_count_and_leave_no_torn_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Ledger(tmp_path) as ledger:
        ledger.append([row("a")])
        before = (tmp_path / FILE).read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", no_space)
            with pytest.raises(
                FolderError, match=r"cannot be written \(No space left on device\); make space"
            ):
                ledger.append([row("b"), row("c")])
        assert (tmp_path / FILE).read_bytes() == before
        assert ledger.finished() == {"a"}
        ledger.append([row("b")])
    assert set(read_rows(tmp_path)) == {"a", "b"}


@pytest.mark.tmpfs
def test_a_full_disk_keeps_what_was_written_before(small_disk: Callable[[str], Path]) -> None:
    disk = small_disk("64k")
    with Ledger(disk) as ledger:
        ledger.append([row("a", note="x" * 30_000)])
        with pytest.raises(FolderError, match="No space left"):
            ledger.append([row("b", note="x" * 50_000)])  # a part of it finds space
        assert set(read_rows(disk)) == {"a"}
        ledger.append([row("b")])
    assert set(read_rows(disk)) == {"a", "b"}
    assert (disk / FILE).read_bytes().count(b"\n") == 2
