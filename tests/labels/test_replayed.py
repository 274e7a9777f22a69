"""Students that learn from folders of FKD labels, and from files of soft labels."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from raydc.data.dataset import Dataset
from raydc.data.imported import digest_of
from raydc.errors import InputError
from raydc.labels.fkd import METADATA_BYTES, FkdFolder, batches, write_batch
from raydc.labels.replayed import ORDER, Replayed, digest_of_labels
from raydc.labels.soft_label_file import read_soft_labels
from raydc.spec.facts import bind
from raydc.spec.plan import Plan, make_plan
from raydc.spec.study import StudySpec
from raydc.study.label_export import export_fkd
from raydc.study.preflight import check_files, with_digests
from raydc.tracking import study_folder
from raydc.worker.evaluate import attempt
from raydc.worker.making import make, make_everything
from raydc.worker.packs import attempt_all
from raydc.worker.set_work import SetWork
from raydc.worker.workbench import Workbench

TRAINED = ("base.train.batch_size=8", "base.train.steps=14", "base.train.loss=kl")
VIEWS = "base.train.augment=[rrc, flip, cutmix]"


@pytest.fixture
def with_files(digits: Dataset) -> Callable[[StudySpec], Plan]:
    """The plan of a study that names files."""

    def make(study: StudySpec) -> Plan:
        evaluations = with_digests(bind(study.evaluations(), digits.facts, study.source))
        check_files(evaluations, digits)
        return make_plan(evaluations, digits.id)

    return make


@pytest.fixture
def exported(
    small: Callable[..., StudySpec], planned: Callable[[StudySpec], Plan], bench: Workbench, tmp_path: Path
) -> Callable[..., tuple[Path, dict]]:
    """(folder of FKD files, row of the student that learnt from the same views)."""

    def make(*settings: str) -> tuple[Path, dict]:
        names = [setting.partition("=")[0] for setting in settings]
        trained = [setting for setting in TRAINED if setting.partition("=")[0] not in names]
        study = small("base.labels={kind: per_view, temperature: 2}", VIEWS, *trained, *settings)
        plan = planned(study)
        make_everything(plan, bench)
        (one,) = plan.evaluations
        row = attempt(one, bench, study="small")
        ran = tmp_path / "ran"
        ran.mkdir()
        (ran / study_folder.STUDY).write_text(study.located(None, str(bench.store.root)).to_yaml())
        (done,) = export_fkd(ran, [row], tmp_path / "labels")
        return done.folder, row

    return make


def settings_of(folder: Path, more: str = "") -> tuple[str, ...]:
    labels = f"base.labels={{kind: fkd, path: {folder}, temperature: 2{more}}}"
    return (labels, "base.train.augment=none", *TRAINED)


@pytest.mark.parametrize("extra", [(), ("base.labels.keep_views=0.4",)])
def test_a_student_of_exported_labels_is_the_student_of_the_views(
    exported: Callable[..., tuple[Path, dict]],
    small: Callable[..., StudySpec],
    with_files: Callable[[StudySpec], Plan],
    bench: Workbench,
    extra: tuple[str, ...],
) -> None:
    folder, theirs = exported(*extra)
    assert len(list(batches(folder))) == (14 if not extra else 6)
    assert len(list((folder / "images").rglob("*.png"))) == 20
    (one,) = with_files(small(*settings_of(folder), *extra)).evaluations
    make(SetWork(with_files(small(*settings_of(folder), *extra)).sets[one.compressed_set]), bench)
    (row,) = next(attempt_all([(one, 1)], bench, study="small"))
    assert row["status"] == "finished", row["error"]
    for name in ("test_loss", "test_acc", "train_acc"):
        assert row[name] == pytest.approx(theirs[name], rel=2e-3, abs=4e-3), name
    # FKD's files hold crops and mixes, where raydc's labels are named by a seed.
    rows = 20 * 4 + 16 if not extra else 40
    assert row["labels_bytes"] == rows * (2 * 10 + METADATA_BYTES)
    assert theirs["labels_bytes"] == rows * 2 * 10
    assert row["labels_id"] == one.evaluation.digests["labels.path"][:20]


def test_ids_hold_the_contents_of_the_folder(
    exported: Callable[..., tuple[Path, dict]],
    small: Callable[..., StudySpec],
    with_files: Callable[[StudySpec], Plan],
    tmp_path: Path,
) -> None:
    folder, _ = exported()
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)

    def name(of: Path) -> str:
        (one,) = with_files(small(*settings_of(of))).evaluations
        return one.id

    assert name(folder) == name(moved)
    order = np.load(moved / ORDER)
    np.save(moved / ORDER, order[:, ::-1])
    assert name(folder) != name(moved)


def test_without_an_order_the_sampler_says_it(exported: Callable[..., tuple[Path, dict]]) -> None:
    folder, _ = exported()
    with pytest.raises(InputError, match=r"labels.order_seed is 7, but .* has order.npy"):
        Replayed(str(folder), 20, 10, 8, 7)
    (folder / ORDER).unlink()
    generator = torch.Generator().manual_seed(42)
    sampler = torch.utils.data.RandomSampler(range(20), generator=generator)
    wanted = [list(torch.utils.data.BatchSampler(sampler, 8, drop_last=False)) for _ in range(3)]
    found = Replayed(str(folder), 20, 10, 8, 42)
    assert [[found.index(e, b).tolist() for b in range(3)] for e in range(3)] == wanted
    assert Replayed(str(folder), 20, 10, 8, 43).index(0, 0).tolist() != wanted[0][0]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (("base.train.batch_size=4",), "whose batches have 8 images, but train.batch_size is 4"),
        (("base.train.steps=15",), "has 14 batches, but a training of 15 steps uses 15"),
        (("base.images.ipc=3",), "labels 20 images of 10 classes per epoch, but the set has 30 images"),
        (("base.train.augment=[flip]",), "train.augment is flip, but labels.kind is fkd"),
        (("base.labels={kind: fkd}",), "labels.path is missing"),
        (("base.labels={kind: fkd, path: nowhere}",), "labels.path is 'nowhere', which cannot be read"),
        (("base.labels={kind: fkd, path: pyproject.toml}",), "it is a file"),
        (("base.train.loss=mse_ce", "base.labels={kind: stored, path: x.pt}"), "mse_ce"),
    ],
)
def test_labels_that_do_not_fit_are_refused_before_anything_runs(
    exported: Callable[..., tuple[Path, dict]],
    small: Callable[..., StudySpec],
    with_files: Callable[[StudySpec], Plan],
    changed: tuple[str, ...],
    said: str,
) -> None:
    folder, _ = exported()
    keys = [setting.partition("=")[0] for setting in changed]
    kept = [s for s in settings_of(folder) if s.partition("=")[0] not in keys]
    with pytest.raises(InputError) as error:
        with_files(small(*kept, *changed))
    assert said in str(error.value)


def test_folders_behind_links_have_the_ids_of_their_contents(
    exported: Callable[..., tuple[Path, dict]], tmp_path: Path
) -> None:
    folder, _ = exported()
    linked = tmp_path / "linked"
    linked.mkdir()
    for entry in folder.iterdir():
        (linked / entry.name).symlink_to(entry)
    (linked / "epoch_0" / "..data").touch()  # files that nobody reads do not count
    assert digest_of_labels(str(linked)) == digest_of_labels(str(folder))
    before = digest_of_labels(str(linked))
    one = FkdFolder(folder).batch(4, 0)
    write_batch(folder / "epoch_4" / "batch_0.tar", replace(one, logits=one.logits + 1))
    assert digest_of_labels(str(linked)) != before


def test_class_folders_behind_links_have_the_digest_of_their_contents(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "0").mkdir(parents=True)
        (tmp_path / name / "0" / "x.png").write_text(name)
        (tmp_path / f"linked-{name}").mkdir()
        (tmp_path / f"linked-{name}" / "0").symlink_to(tmp_path / name / "0")
        (tmp_path / name / "0" / "loop").symlink_to(tmp_path / name)
    digests = {digest_of("images.path", str(tmp_path / name)) for name in ("a", "b")}
    assert len(digests) == 2
    linked = [digest_of("images.path", str(tmp_path / f"linked-{name}")) for name in ("a", "b")]
    assert linked[0] != linked[1]


def test_labels_that_change_after_the_plan_are_not_learnt_from(
    small: Callable[..., StudySpec], with_files: Callable[[StudySpec], Plan], bench: Workbench, tmp_path: Path
) -> None:
    file = tmp_path / "labels.pt"
    torch.save(torch.full((20, 10), 0.1), file)
    plan = with_files(small(f"base.labels={{kind: stored, path: {file}}}", "base.train.loss=soft_ce"))
    make_everything(plan, bench)
    torch.save(torch.full((20, 10), 0.2), file)
    row = attempt(plan.evaluations[0], bench, study="small")
    assert row["status"] == "failed"
    assert "whose contents have changed since the run was planned" in row["error"]


def test_mixes_of_larger_images_are_refused(exported: Callable[..., tuple[Path, dict]]) -> None:
    folder, _ = exported()
    batch = FkdFolder(folder).batch(1, 0)
    assert batch.box is not None
    write_batch(folder / "epoch_1" / "batch_0.tar", replace(batch, box=(4, 4, 9, 8)))
    replayed = Replayed(str(folder), 20, 10, 8, 42)
    with pytest.raises(
        InputError, match=r"batch 0 of epoch 1 mixes up to pixel 9, but the images have 8 x 8"
    ):
        replayed.batch(1, 0)


def test_the_teachers_logits_can_be_met_as_such(
    exported: Callable[..., tuple[Path, dict]],
    small: Callable[..., StudySpec],
    with_files: Callable[[StudySpec], Plan],
    bench: Workbench,
) -> None:
    folder, theirs = exported("base.train.loss=mse_ce")
    settings = [s.replace("loss=kl", "loss=mse_ce") for s in settings_of(folder)]
    (one,) = with_files(small(*settings)).evaluations
    row = attempt(one, bench, study="small")
    assert row["test_loss"] == pytest.approx(theirs["test_loss"], rel=2e-3)


@pytest.mark.parametrize(
    ("order", "said"),
    [
        (np.zeros((5, 20), np.int64), "must contain every image once"),
        (np.zeros((4, 20), np.int64), "5 x 20"),
        (np.zeros((5, 20)), "whole numbers"),
    ],
)
def test_an_order_that_is_none_is_refused(
    exported: Callable[..., tuple[Path, dict]], order: np.ndarray, said: str
) -> None:
    folder, _ = exported()
    np.save(folder / ORDER, order)
    with pytest.raises(InputError, match=said):
        Replayed(str(folder), 20, 10, 8, 42)
    (folder / ORDER).write_text("not an array")
    with pytest.raises(InputError, match="not an array"):
        Replayed(str(folder), 20, 10, 8, 42)


def test_a_file_of_soft_labels_is_learnt_from(
    small: Callable[..., StudySpec], with_files: Callable[[StudySpec], Plan], bench: Workbench, tmp_path: Path
) -> None:
    labels = torch.full((20, 10), 0.02)
    labels[torch.arange(20), torch.arange(20) // 2] = 0.82
    torch.save(labels, tmp_path / "labels.pt")
    np.save(tmp_path / "labels.npy", labels.double().numpy())
    rows = {}
    for name in ("labels.pt", "labels.npy", "smooth"):
        given = f"{{kind: stored, path: {tmp_path / name}}}"
        given = "{kind: smooth, smoothing: 0.2}" if name == "smooth" else given
        plan = with_files(small(f"base.labels={given}", "base.train.loss=soft_ce"))
        make_everything(plan, bench)
        rows[name] = attempt(plan.evaluations[0], bench, study="small")
    assert rows["labels.pt"]["test_loss"] == rows["labels.npy"]["test_loss"]
    assert rows["labels.pt"]["test_loss"] == pytest.approx(rows["smooth"]["test_loss"], rel=1e-3)
    assert rows["labels.pt"]["labels_bytes"] == 20 * 2 * 10


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (torch.zeros(19, 10), r"shape \[19, 10\]"),
        (torch.zeros(20), r"shape \[20\]"),
        (torch.full((20, 10), torch.nan), "not all finite"),
        (torch.full((20, 10), -1.0), "from 0 to 65,504"),
        (torch.full((20, 10), 1e5), "from 0 to 65,504"),
        (torch.zeros(20, 10, dtype=torch.complex64), "shape"),
        ({"weights": torch.zeros(20, 10)}, "none of labels, label, soft_labels"),
        ([[1.0] * 10] * 20, "nested lists"),
        ("text", "contains no labels"),
    ],
)
def test_files_that_hold_no_soft_labels_are_refused(tmp_path: Path, content: object, said: str) -> None:
    file = tmp_path / "labels.pt"
    torch.save(content, file)
    with pytest.raises(InputError, match=said):
        read_soft_labels(str(file), 20, 10)


def test_a_dict_of_labels_is_read_and_other_files_are_refused(tmp_path: Path) -> None:
    torch.save({"soft_labels": torch.ones(2, 3)}, tmp_path / "labels.pt")
    assert read_soft_labels(str(tmp_path / "labels.pt"), 2, 3).tolist() == [[1.0] * 3] * 2
    (tmp_path / "labels.csv").write_text("1")
    for name, said in ((".", "a folder"), ("no.pt", "does not exist"), ("labels.csv", "must be a .pt")):
        with pytest.raises(InputError, match=said):
            read_soft_labels(str(tmp_path / name), 2, 3)
