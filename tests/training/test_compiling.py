"""A compiler counts when it works, and compiled code lies where this machine can write, by its processor."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from raydc.training import compiling
from raydc.training.compiling import compiler, no_compiler, processor, use_cache

CACHE = "TORCHINDUCTOR_CACHE_DIR"
X86 = "processor\t: {0}\nmodel name\t: Xeon {1}\ncpu MHz\t\t: {2}\nflags\t\t: fpu {3}\n\n"
MakeCompiler = Callable[[str], Path]


@pytest.fixture
def make_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeCompiler:
    """`make_compiler(lines)`: a shell script, and CXX names it."""

    def make(lines: str) -> Path:
        path = tmp_path / f"cxx{len(list(tmp_path.iterdir()))}"
        path.write_text(f"#!/bin/sh\n{lines}\n")
        path.chmod(0o755)
        monkeypatch.setenv("CXX", str(path))
        return path

    return make


@pytest.mark.compiler
def test_a_compiler_that_works_is_found_with_its_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    found = compiler()
    assert found is not None
    assert Path(found).is_file()
    monkeypatch.setenv("CXX", f"{found} -O0")
    assert compiler() == found


@pytest.mark.command
@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("exit 1", "does not work (exit status 1, without output)"),
        # As one that checks its licence, or a wrapper whose compiler is gone.
        ('[ "$1" = --version ] && exit 0; echo "no licence" >&2; exit 3', "does not work (no licence)"),
        ("echo 'In file x:' >&2; echo 'fatal error: cmath: No such file' >&2; exit 1", "(fatal error: cmath"),
        ("exit 0", "does not work (exit status 0, without output)"),
    ],
)
def test_a_compiler_that_is_there_but_broken_is_none(
    make_compiler: MakeCompiler, lines: str, said: str
) -> None:
    path = make_compiler(lines)
    assert compiler() is None
    assert no_compiler().startswith(f"the C++ compiler {path} ")
    assert said in no_compiler()
    assert no_compiler().endswith(compiling.EAGERLY)


@pytest.mark.parametrize("named", ["no-such-compiler", "", "'g++"])
def test_a_compiler_that_is_not_there(monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    monkeypatch.setenv("CXX", named)
    assert compiler() is None
    assert no_compiler().startswith(f"no C++ compiler ({named or 'CXX is empty'}): students run eagerly")


@pytest.mark.command
def test_a_compiler_that_hangs_is_given_up(
    make_compiler: MakeCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "PROBE_SECONDS", 0.2)
    make_compiler("exec sleep 60")
    assert compiler() is None
    assert "timed out" in no_compiler()


@pytest.mark.command
def test_a_compiler_is_tried_once_by_a_process(make_compiler: MakeCompiler, tmp_path: Path) -> None:
    make_compiler(f"echo tried >> {tmp_path / 'log'}; exit 1")
    assert [compiler(), compiler(), no_compiler() == no_compiler()] == [None, None, True]
    assert (tmp_path / "log").read_text() == "tried\n"


def test_compiling_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")
    assert compiler() is None
    assert no_compiler().startswith("TORCHDYNAMO_DISABLE is 1: ")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder of its own, with nothing said about caches and folders."""
    for name in (CACHE, "RAYDC_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, "")  # so that it is put back afterwards
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    return tmp_path / "home"


def cache_after(folder: Path | None) -> Path:
    """Where compiled code is kept by `use_cache(folder)`, without the name's last part."""
    os.environ.pop(CACHE, None)
    use_cache(folder)
    kept = Path(os.environ[CACHE])
    assert kept.is_dir()
    assert kept.name.endswith(processor())
    return kept.parent


def test_compiled_code_is_kept_in_the_folder_that_is_given(home: Path, tmp_path: Path) -> None:
    assert cache_after(tmp_path / "store" / "compiled") == tmp_path / "store" / "compiled"
    assert not home.exists()


@pytest.mark.parametrize("folder", [None, Path("/dev/null/compiled")])
def test_without_a_folder_it_is_kept_in_the_users_cache(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path | None
) -> None:
    assert cache_after(folder) == home / ".cache" / "raydc" / "compiled"
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    assert cache_after(folder) == home / ".cache" / "raydc" / "compiled"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_after(folder) == tmp_path / "xdg" / "raydc" / "compiled"
    monkeypatch.setenv("RAYDC_CACHE", str(tmp_path / "given"))
    assert cache_after(folder) == tmp_path / "given" / "compiled"


@pytest.mark.usefixtures("home")
def test_without_a_home_it_is_kept_where_only_this_user_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/dev/null")
    own = tmp_path / "tmp" / f"raydc-{os.getuid()}"
    assert cache_after(None) == own / "compiled"
    assert own.stat().st_mode & 0o777 == 0o700
    own.chmod(0o777)  # whoever made it so could put code there that is run
    os.environ.pop(CACHE)
    use_cache(None)
    assert CACHE not in os.environ


@pytest.mark.usefixtures("home")
def test_a_folder_of_somebody_elses_choice_is_no_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/dev/null")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "tmp" / f"raydc-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    use_cache(None)
    assert CACHE not in os.environ


@pytest.mark.tmpfs
def test_a_full_disk_takes_no_compiled_code(home: Path, small_disk: Callable[[str], Path]) -> None:
    assert cache_after(small_disk("2m") / "compiled") == home / ".cache" / "raydc" / "compiled"


def test_what_the_environment_says_is_obeyed(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE, "said")
    use_cache(tmp_path / "compiled")
    assert os.environ[CACHE] == "said"
    assert not (tmp_path / "compiled").exists()
    assert not home.exists()


def test_processors_of_unlike_instructions_have_names_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "CPUINFO", tmp_path / "cpuinfo")

    def named(*cores: tuple[str, str, str]) -> str:
        (tmp_path / "cpuinfo").write_text("".join(X86.format(i, *core) for i, core in enumerate(cores)))
        processor.cache_clear()
        return processor()

    try:
        one = named(("E5", "2600.0", "avx2"))
        assert len(one) == 8
        assert named(("E5", "1200.0", "avx2"), ("E5", "3100.5", "avx2")) == one
        assert named(("E5", "2600.0", "avx2 avx512f")) != one
        assert named(("E7", "2600.0", "avx2")) != one
        (tmp_path / "cpuinfo").unlink()
        monkeypatch.setattr("platform.processor", lambda: "arm")
        processor.cache_clear()
        arm = processor()
        monkeypatch.setattr("platform.processor", lambda: "riscv")
        processor.cache_clear()
        assert processor() != arm
    finally:
        processor.cache_clear()
