"""Errors of a disk are told from those of something else."""

from __future__ import annotations

import errno
from pathlib import Path

from raydc.disk import fault


def test_causes_are_followed_unless_they_were_cut_off(tmp_path: Path) -> None:
    def raised(cut: bool) -> BaseException:
        try:
            try:
                raise PermissionError(errno.EACCES, "denied", str(tmp_path / "file"))
            except PermissionError:
                if cut:
                    raise KeyError("other") from None
                raise KeyError("other")  # noqa: B904
        except KeyError as error:
            return error

    assert fault(raised(cut=False), tmp_path) == "Permission denied"
    assert fault(raised(cut=True), tmp_path) is None


def test_an_error_that_names_no_file_is_the_folders_only_if_a_disk_is_full(tmp_path: Path) -> None:
    assert fault(OSError(errno.EPERM, "not permitted"), tmp_path) is None
    assert fault(OSError(errno.EDQUOT, "quota"), tmp_path) == "Disk quota exceeded"
