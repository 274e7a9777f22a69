"""One evaluation from end to end: bit-equal, fair, and runnable from an exported file alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raydc.data.dataset import Dataset
from raydc.labels import learned
from raydc.labels.logits_file import FILE as LOGITS
from raydc.spec.plan import Plan
from raydc.spec.study import StudySpec
from raydc.store import saved
from raydc.store.local import LocalStore
from raydc.training import engine
from raydc.training.compiling import no_compiler
from raydc.worker import exported as module
from raydc.worker.evaluate import attempt, evaluate
from raydc.worker.exported import export_line, main
from raydc.worker.making import make_everything
from raydc.worker.workbench import Workbench

SOFT = "base.labels={kind: soft, temperature: 2}"


def test_the_same_evaluation_twice_is_equal_bit_for_bit(
    small: Callable[..., StudySpec], ready: Callable[[StudySpec], Plan], bench: Workbench, store: LocalStore
) -> None:
    study = small(SOFT, "base.train.augment=dsa", "base.train.steps=20", "base.train.batch_size=8")
    (one,) = ready(study).evaluations
    first = evaluate(one, bench)
    again = evaluate(one, Workbench(bench.dataset, LocalStore(store.root), bench.device))
    assert (first.test_acc, first.test_loss, first.train_acc) == (
        again.test_acc,
        again.test_loss,
        again.train_acc,
    )


def test_replicates_differ_and_temperature_does_not_touch_the_rest(
    small: Callable[..., StudySpec], ready: Callable[[StudySpec], Plan], bench: Workbench
) -> None:
    plan = ready(small(SOFT, "seeds=2", "grid.labels.temperature=[1, 4]"))
    assert len(plan.evaluations) == 4
    assert len(plan.sets) == len(plan.passes) == 2
    assert len({evaluate(p, bench).test_loss for p in plan.evaluations}) == 4


def test_every_label_is_forwarded_once(
    small: Callable[..., StudySpec], ready: Callable[[StudySpec], Plan], bench: Workbench
) -> None:
    study = small(SOFT, "base.images.ipc=4", "grid.labels.temperature=[1, 2, 4]", "grid.labels.top_k=[1, 5]")
    plan = ready(study)
    assert (plan.forwards(10), plan.naive_forwards(10)) == (40, 240)
    assert bench.relabeller.images_forwarded == 40
    for one in plan.evaluations:
        evaluate(one, bench)
    make_everything(plan, bench)
    assert bench.relabeller.images_forwarded == 40


def test_training_leaves_stored_labels_alone(
    small: Callable[..., StudySpec], ready: Callable[[StudySpec], Plan], bench: Workbench
) -> None:
    (one,) = ready(small(SOFT)).evaluations
    artifact = bench.store.find("logits", one.passes[0].id)
    before = artifact.path(LOGITS).read_bytes()
    evaluate(one, bench)
    assert artifact.path(LOGITS).read_bytes() == before


LEARNED = (
    "base.labels={kind: learned, unroll_steps: 2, inner_steps: 4, outer_steps: 3, lr: 0.1, real_batch: 50}"
)


def test_learned_labels_are_made_once_for_all_students_of_a_set(
    small: Callable[..., StudySpec], ready: Callable[[StudySpec], Plan], bench: Workbench
) -> None:
    plan = ready(small(LEARNED, "base.images.ipc=1", "grid.train.lr=[0.01, 0.05]"))
    assert (len(plan.evaluations), len(plan.learned)) == (2, 1)
    (name,) = plan.learned
    labels, artifact = bench.learned(name)
    assert labels.shape == (10, 10)
    assert (labels >= 0).all()
    assert len(artifact.meta["losses"]) == 3
    assert not torch.equal(labels, torch.eye(10))
    measured = evaluate(plan.evaluations[0], bench)
    assert (measured.labels_bytes, measured.labels_seconds) == (10 * 20, artifact.meta["seconds"])


def test_learning_may_begin_at_a_teachers_labels(
    small: Callable[..., StudySpec], ready: Callable[[StudySpec], Plan], bench: Workbench
) -> None:
    given = LEARNED.replace("learned,", "learned, init: teacher, temperature: 2,").replace(
        "lr: 0.1", "lr: 1e-6"
    )
    (one,) = (plan := ready(small(given, "base.images.ipc=1"))).evaluations
    assert (len(plan.passes), len(plan.trajectories)) == (1, 1)
    logits, _ = bench.logits(one.passes)
    labels, _ = bench.learned(one.learned)
    torch.testing.assert_close(labels, torch.softmax(logits[0] / 2, 1), atol=1e-4, rtol=0)


def test_a_killed_learning_goes_on_where_it_was_saved(
    small: Callable[..., StudySpec],
    planned: Callable[[StudySpec], Plan],
    digits: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = planned(small(LEARNED, "base.images.ipc=1"))
    (name,) = plan.learned

    def learnt(folder: str) -> torch.Tensor:
        bench = Workbench(digits, LocalStore(tmp_path / folder), torch.device("cpu"))
        assert make_everything(plan, bench) == {}
        assert bench.store.names("progress") == []
        return bench.learned(name)[0]

    whole = learnt("whole")
    monkeypatch.setattr(saved, "SAVE_SECONDS", 0.0)
    calls = 0
    move = learned._move

    def killed(*given: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        move(*given)

    monkeypatch.setattr(learned, "_move", killed)
    with pytest.raises(KeyboardInterrupt):
        learnt("resumed")
    assert LocalStore(tmp_path / "resumed").names("progress") == [f"{name}-000000{step}" for step in (1, 2)]
    assert torch.equal(whole, learnt("resumed"))
    assert calls == 4


def test_no_steps_cost_only_the_system(
    small: Callable[..., StudySpec], ready: Callable[[StudySpec], Plan], bench: Workbench
) -> None:
    (one,) = ready(small("base.train.steps=0")).evaluations
    measured = evaluate(one, bench)
    assert (measured.steps, measured.train_seconds) == (0, 0.0)
    assert 0 <= measured.test_acc < 0.5


def test_extra_tests_are_kept_by_epoch_only_when_asked_for(
    small: Callable[..., StudySpec], ready: Callable[[StudySpec], Plan], bench: Workbench
) -> None:
    (plain,) = ready(small()).evaluations
    (tested,) = ready(small("base.train.test_every=2")).evaluations
    without, best = evaluate(plain, bench), evaluate(tested, bench)
    assert (without.best_test_acc, without.test_acc_by_epoch) == (None, None)
    assert best.test_acc == without.test_acc
    epochs = tested.evaluation.recipe.total_steps(10)
    assert len(best.test_acc_by_epoch) == epochs // 2
    assert best.best_test_acc == max([*best.test_acc_by_epoch, best.test_acc])


def test_sizes_are_counted(
    small: Callable[..., StudySpec], ready: Callable[[StudySpec], Plan], bench: Workbench
) -> None:
    (hard,) = ready(small("base.images.ipc=3")).evaluations
    (soft,) = ready(small(SOFT, "base.images.ipc=3")).evaluations
    a, b = evaluate(hard, bench), evaluate(soft, bench)
    assert a.images_bytes == b.images_bytes > 30 * 60
    assert (a.labels_bytes, b.labels_bytes) == (30, 30 * 20)
    assert (a.teacher_test_acc, b.teacher_test_acc is not None) == (None, True)


def test_a_class_without_images_is_left_out(
    small: Callable[..., StudySpec], ready: Callable[[StudySpec], Plan], bench: Workbench
) -> None:
    plan = ready(small("base.images.drop_class='7'"))
    compressed, _ = bench.compressed_set(plan.evaluations[0].compressed_set)
    assert np.bincount(compressed.labels, minlength=10).tolist() == [2] * 7 + [0] + [2] * 2


def test_a_student_that_diverges_is_a_failed_row_with_its_step(
    small: Callable[..., StudySpec], ready: Callable[[StudySpec], Plan], bench: Workbench
) -> None:
    (one,) = ready(small("base.train.lr=1e30", "base.train.steps=70")).evaluations
    row = attempt(one, bench, study="small")
    assert row["status"] == "failed"
    assert row["test_acc"] is None
    assert "at step" in row["error"]


def test_a_damaged_set_fails_its_evaluations_only(
    small: Callable[..., StudySpec], planned: Callable[[StudySpec], Plan], digits: object, tmp_path: Path
) -> None:
    store = LocalStore(tmp_path)
    plan = planned(small())
    bench = Workbench(digits, store, torch.device("cpu"))
    make_everything(plan, bench)
    path = store.root / "set" / plan.evaluations[0].compressed_set / "set.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    bench = Workbench(digits, LocalStore(tmp_path), torch.device("cpu"))
    row = attempt(plan.evaluations[0], bench, study="small")
    assert row["status"] == "failed"
    assert "ArtifactError" in row["error"]
    make_everything(plan, bench)
    assert attempt(plan.evaluations[0], bench, study="small")["status"] == "finished"


@pytest.fixture
def exported(
    small: Callable[..., StudySpec], planned: Callable[[StudySpec], Plan], tmp_path: Path
) -> tuple[Path, Plan, StudySpec]:
    study = small(SOFT, "grid.images.ipc=[1, 2]")
    plan = planned(study)
    file = tmp_path / "study.jsonl"
    dataset_id = "given"
    file.write_text("".join(export_line(p, study.name, dataset_id) + "\n" for p in plan.evaluations))
    return file, plan, study


def test_an_exported_file_runs_alone_and_goes_on(
    exported: tuple[Path, Plan, StudySpec], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, plan, _ = exported
    arguments = [str(file), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert main(arguments) == 0
    rows = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert {row["evaluation_id"] for row in rows} == {p.id for p in plan.evaluations}
    assert {row["status"] for row in rows} == {"finished"}
    # One checkpoint and two sets, of 10 and 20 images.
    study = "30 in the study; labelling again for every evaluation would forward 30"
    assert capsys.readouterr().out.splitlines()[-1] == f"labels: 30 images forwarded now, {study}"
    assert main(arguments) == 0
    said = capsys.readouterr().out.splitlines()
    assert said == ["2 evaluations, 2 finished before", f"labels: 0 images forwarded now, {study}"]


@pytest.mark.command  # the compiler
def test_an_exported_run_says_once_that_its_students_run_eagerly_for_want_of_a_compiler(
    exported: tuple[Path, Plan, StudySpec],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    file, _, _ = exported
    engine._say_once.cache_clear()
    monkeypatch.setattr(engine, "LEAST_FLOP", 0)  # all students have enough work to be compiled
    monkeypatch.setenv("CXX", "false")
    assert main([str(file), "--out", str(tmp_path / "out"), "--device", "cpu"]) == 0
    assert "false does not work" in no_compiler()
    assert [r.getMessage() for r in caplog.records].count(no_compiler()) == 1
    rows = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert {row["engine"] for row in rows} == {"eager"}


@pytest.mark.tmpfs
def test_an_exported_run_whose_disk_fills_up_goes_on_when_there_is_space(
    exported: tuple[Path, Plan, StudySpec],
    small_disk: Callable[[str], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file, plan, _ = exported
    disk = small_disk("64k")
    arguments = [str(file), "--out", str(disk), "--store", str(tmp_path / "store"), "--device", "cpu"]
    monkeypatch.setattr(module, "use_cache", lambda _: None)  # what is compiled would fill it as well
    (disk / "results.jsonl").write_bytes(b"")
    with (disk / "filler").open("ab", buffering=0) as filler, suppress(OSError):
        while True:
            filler.write(bytes(4096))
    assert main(arguments) == 3
    stopped = capsys.readouterr().err
    assert "stopped: the study's folder" in stopped
    assert "cannot be written (No space left on device)" in stopped
    (disk / "filler").unlink()
    assert main(arguments) == 0
    lines = (disk / "results.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["evaluation_id"] for line in lines) == sorted(
        p.id for p in plan.evaluations
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [("", "contains no evaluations"), ("{}\n", "line 1 is not an evaluation"), ("x\n", "line 1 is not")],
)
def test_a_file_that_is_no_export_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, said: str
) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text(content)
    assert main([str(file), "--out", str(tmp_path / "out")]) == 2
    assert said in capsys.readouterr().err


def test_other_data_than_the_plans_are_refused(
    exported: tuple[Path, Plan, StudySpec], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, _, _ = exported
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for line in lines:
        line["evaluation"]["dataset"]["val_fraction"] = 0.5
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main([str(file), "--out", str(tmp_path / "out")]) == 2
    assert "are not those that the plan was made with" in capsys.readouterr().err


def test_an_error_that_nobody_foresaw_is_recorded_with_its_words(
    small: Callable[..., StudySpec],
    ready: Callable[[StudySpec], Plan],
    bench: Workbench,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (one,) = ready(small()).evaluations

    def broken(*_: object) -> None:
        raise RuntimeError("Expected more than 1 value\nper channel")

    monkeypatch.setattr("raydc.worker.evaluate.fit", lambda *_, **__: broken())
    row = attempt(one, bench, study="small")
    assert (row["status"], row["error"]) == ("failed", "RuntimeError: Expected more than 1 value per channel")


def test_a_network_that_is_not_finite_after_its_last_step_fails(
    small: Callable[..., StudySpec], ready: Callable[[StudySpec], Plan], bench: Workbench
) -> None:
    (one,) = ready(small("base.train.lr=1e38", "base.train.steps=1")).evaluations
    row = attempt(one, bench, study="small")
    assert row["status"] == "failed"
    assert "lower train.lr" in row["error"]


def test_a_teacher_that_cannot_be_trained_fails_what_waits_for_it(
    exported: tuple[Path, Plan, StudySpec], tmp_path: Path
) -> None:
    file, _, _ = exported
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for line in lines:
        line["evaluation_id"] = None
    lines[0]["evaluation"]["teacher"]["train"]["train.lr"] = 1e30
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main([str(file), "--out", str(tmp_path / "out"), "--device", "cpu"]) == 3
    rows = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert sorted(row["status"] for row in rows) == ["failed", "finished"]
    failed = next(row for row in rows if row["status"] == "failed")
    assert "not started: EvaluationError: the loss is" in failed["error"]


def test_a_torn_line_is_cut_off_and_its_evaluation_run_again(
    exported: tuple[Path, Plan, StudySpec], tmp_path: Path
) -> None:
    file, plan, _ = exported
    arguments = [str(file), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert main(arguments) == 0
    results = tmp_path / "out" / "results.jsonl"
    results.write_bytes(results.read_bytes()[:-40])
    assert main(arguments) == 0
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    assert {row["evaluation_id"] for row in rows} == {p.id for p in plan.evaluations}
    assert len(rows) == 2


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [("--device", "tpu9", "--device is 'tpu9'"), ("--out", "/dev/null/x", "cannot be written")],
)
def test_options_of_the_export_command_that_cannot_be(
    exported: tuple[Path, Plan, StudySpec],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    option: str,
    value: str,
    said: str,
) -> None:
    file, _, _ = exported
    given = {"--out": str(tmp_path / "out"), option: value}
    assert main([str(file), *(part for pair in given.items() for part in pair)]) == 2
    assert said in capsys.readouterr().err
