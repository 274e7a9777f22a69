"""Names and paths in files from others: nothing is read or written outside of where it belongs."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from pyarrow import fs

from raydc.errors import InputError
from raydc.labels.fkd import batches, read_batch
from raydc.spec.study import parse_study
from raydc.store.artifact import MANIFEST
from raydc.store.local import LocalStore
from raydc.store.remote import NodeCache, RemoteStore
from raydc.worker import exported
from tests.shell import STUDY

OUTSIDE = ("../outside", "/etc/hostname", "a/../../outside", "..", ".", "", "a/b")


def archive(path: Path) -> Path:
    """A real tar with members that leave the folder, links among them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name in ("../outside", str(path.parent / "absolute"), "storages"):
            member = tarfile.TarInfo(name)
            member.size = 4
            tar.addfile(member, io.BytesIO(b"evil"))
        for kind, name in ((tarfile.SYMTYPE, "link"), (tarfile.LNKTYPE, "hard")):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/hostname"
            tar.addfile(member)
    return path


def test_nothing_is_unpacked_from_a_tar(tmp_path: Path) -> None:
    """FKD's files are named .tar, but torch.save wrote them; torch's own old archives are not read."""
    path = archive(tmp_path / "labels" / "epoch_0" / "batch_0.tar")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match="not a batch of FKD labels"):
        read_batch(path)
    assert sorted(tmp_path.rglob("*")) == before


def test_labels_are_found_by_their_own_names(tmp_path: Path) -> None:
    (tmp_path / "epoch_0").mkdir()
    for name in ("batch_0.tar", "batch_..tar", "batch_0.tar.gz", "batch_0;x.tar"):
        (tmp_path / "epoch_0" / name).touch()
    assert [path.name for _, _, path in batches(tmp_path)] == ["batch_0.tar"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_manifest_names_plain_files(name: str, tmp_path: Path) -> None:
    """Also in an object store, whose files are copied to names that the manifest gives."""
    (tmp_path / "outside").write_bytes(b"")
    folder = tmp_path / "store" / "logits" / "one"
    folder.mkdir(parents=True)
    text = json.dumps({"files": {name: [0, "00000000"]}, "meta": {}})
    (folder / MANIFEST).write_text(text)
    remote = RemoteStore(
        "x://", fs.LocalFileSystem(), str(tmp_path / "store"), NodeCache(tmp_path / "cache", 1e9)
    )
    assert remote.find("logits", "one") is None
    assert not (tmp_path / "cache" / "logits" / "outside").exists()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).write_text(text)
    assert LocalStore(tmp_path / "store").find("logits", "one") is None
    assert (tmp_path / "outside").exists()


@pytest.mark.parametrize("name", ["a/b", "../x", "/tmp/x", "..", ".hidden", "a\\nb", "-rf", "a b", "x" * 101])
def test_the_name_of_a_study_is_a_plain_name(name: str) -> None:
    """It names the folder of the results and MLflow's experiment."""
    with pytest.raises(InputError, match="name is "):
        parse_study(STUDY.replace("name: tiny", f'name: "{name}"'), "s.yaml")


def line(**changes: object) -> str:
    """A line of `raydc plan --export` for digits, with some keys changed."""
    study = parse_study(STUDY.replace("seeds: 2", "seeds: 1"), "s.yaml")
    content = json.loads(next(iter(study.evaluations())).to_json())
    for key, value in changes.items():
        block, _, name = key.partition("__")
        content[block] = {**content[block], name: value} if name else value
    return json.dumps({"evaluation_id": None, "study": "tiny", "evaluation": content})


@pytest.mark.parametrize(
    "changes",
    [
        {"dataset__name": "../../x"},
        {"dataset__name": "os:system", "dataset__source": "named"},
        {"dataset__source": "../x"},
        {"dataset__location": "/nowhere", "dataset__source": "parquet"},
        {"dataset": None},
        {"point": [1]},
        {"teacher": {"arch": 1}},
        {"seed": {"a": 1}},
    ],
)
def test_an_exported_plan_of_somebody_else(
    changes: dict[str, object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It reads nothing but the dataset, and writes nothing but below --out."""
    plan = tmp_path / "plan.jsonl"
    plan.write_text(line(**changes) + "\n")
    assert exported.main([str(plan), "--out", str(tmp_path / "out"), "--device", "cpu"]) == 2
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert said.startswith("error: ")
    assert {path.name for path in tmp_path.iterdir()} == {"plan.jsonl", "out"}


def test_outputs_are_what_they_are_called(refused: Callable[..., str], tmp_path: Path) -> None:
    """A place that cannot be written is refused before any work."""
    assert "--out is" in refused("run", "tiny.yaml", "--out", "/dev/null/x")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    assert "holds other files (thesis.tex)" in refused("run", "tiny.yaml", "--out", "mine")
