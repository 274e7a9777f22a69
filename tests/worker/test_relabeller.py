"""Relabelling: sets of any size, teachers that say nonsense, and artifacts that are not what was made."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from raydc.data.dataset import Dataset
from raydc.errors import ArtifactError, EvaluationError
from raydc.labels.logits_file import FILE, read_logits, read_together, write_logits
from raydc.labels.views import segment_name
from raydc.spec.plan import LabelPass, Plan
from raydc.spec.study import StudySpec
from raydc.store.artifact import MANIFEST
from raydc.store.local import LocalStore
from raydc.teachers.teacher import Teacher
from raydc.worker import relabeller
from raydc.worker.evaluate import attempt
from raydc.worker.workbench import Workbench

SOFT = "base.labels={kind: soft}"
PER_VIEW = (
    "base.labels={kind: per_view}",
    "base.train.augment=[flip]",
    "base.train.batch_size=8",
    "base.train.steps=7",
)


@pytest.fixture
def bench(digits: Dataset, store: LocalStore, tmp_path: Path) -> Workbench:
    """A bench whose store has nothing yet."""
    return Workbench(digits, LocalStore(tmp_path), torch.device("cpu"))


def test_large_sets_say_what_they_say_whole(
    small: Callable[..., StudySpec],
    ready: Callable[[StudySpec], Plan],
    bench: Workbench,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    passes = list(ready(small(SOFT, "seeds=5", "base.images.ipc=3")).passes.values())
    whole = [said.logits for said in bench.relabeller.label(passes)]
    monkeypatch.setattr(relabeller, "WHOLE_BYTES", 0)
    assert all(torch.equal(a.logits, b) for a, b in zip(bench.relabeller.label(passes), whole, strict=True))
    alone = [said.logits for p in passes for said in bench.relabeller.label([p])]
    assert all(torch.equal(a, b) for a, b in zip(alone, whole, strict=True))


# --- teachers that say what is not finite ---------------------------------------------------------


@pytest.mark.parametrize("kind", [(SOFT,), PER_VIEW])
def test_a_teacher_that_says_nan_is_named_by_the_rows(
    kind: tuple[str, ...],
    small: Callable[..., StudySpec],
    ready: Callable[[StudySpec], Plan],
    bench: Workbench,
) -> None:
    plan = ready(small(*kind))
    (label_pass,) = plan.passes.values()
    for name in bench.store.names("logits"):
        bench.store.remove("logits", name)
    network = bench.teacher(label_pass).teacher.network
    next(network.parameters()).fill_(torch.nan)
    expected = r"'teacher' \(network 0\) after epoch 2 produced non-finite logits for \d+ of \d+ images; "
    with pytest.raises(EvaluationError, match=expected + "lower its lr or choose an earlier"):
        bench.ensure(label_pass)
    row = attempt(plan.evaluations[0], bench, study="small")
    assert row["status"] == "failed"
    assert row["error"].startswith(
        "EvaluationError: the teacher 'teacher' (network 0) after epoch 2 produced"
    )
    assert bench.store.names("logits") == []


def test_one_bad_image_is_enough_and_sets_before_it_are_said(
    small: Callable[..., StudySpec],
    ready: Callable[[StudySpec], Plan],
    bench: Workbench,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    passes = list(ready(small(SOFT, "seeds=3")).passes.values())
    real = Teacher._paced

    def broken(self: Teacher, parts: object) -> object:
        for logits, pace in real(self, parts):
            logits = logits.clone()
            logits[45, 3] = torch.inf  # the third of sets of 20
            yield logits, pace

    monkeypatch.setattr(Teacher, "_paced", broken)
    said = bench.relabeller.label(passes)
    assert [next(said).label_pass for _ in range(2)] == [p.id for p in passes[:2]]
    with pytest.raises(EvaluationError, match="non-finite logits for 1 of 20 images"):
        next(said)


# --- artifacts that are intact, but not what was made ---------------------------------------------


def _rewritten(store: LocalStore, name: str, logits: list[np.ndarray], **meta: object) -> None:
    """Put logits of any shape, a record batch each, in place of an artifact's, with a sum that is right."""
    folder = store.root / "logits" / name
    columns = [pa.FixedSizeListArray.from_arrays(pa.array(part.ravel()), part.shape[1]) for part in logits]
    batches = [pa.record_batch([column], names=["logits"]) for column in columns]
    with pa.OSFile(str(folder / FILE), "wb") as sink, pa.ipc.new_file(sink, batches[0].schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    content = (folder / FILE).read_bytes()
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][FILE] = [len(content), f"{zlib.crc32(content):08x}"]
    kept = {key: value for key, value in (manifest["meta"] | meta).items() if value is not None}
    (folder / MANIFEST).write_text(json.dumps(manifest | {"meta": kept}))


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


WRONG = {
    "fewer rows": ([zeros(5, 10)], r"contains logits of 5 images and 10 classes, but must have 20 and 10"),
    "other classes": ([zeros(20, 9)], r"contains logits of 20 images and 9 classes, but must have 20 and 10"),
    "two batches": ([zeros(10, 10)] * 2, r"contains no logits \(it has 2 record batches instead of 1\)"),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("kind", ["soft", "per_view"])
def test_logits_of_another_shape_are_refused_and_made_again_once_they_are_removed(
    wrong: str,
    kind: str,
    small: Callable[..., StudySpec],
    ready: Callable[[StudySpec], Plan],
    bench: Workbench,
) -> None:
    plan = ready(small(*((SOFT,) if kind == "soft" else (*PER_VIEW[:3], "base.train.steps=3"))))
    (planned,) = plan.evaluations
    (name,) = bench.store.names("logits")
    parts, said = WRONG[wrong]
    _rewritten(bench.store, name, parts)
    row = attempt(planned, bench, study="small")
    assert row["error"].startswith("ArtifactError: ")
    with pytest.raises(ArtifactError, match=said + r".*; remove the folder '\S+', and it is made again$"):
        Workbench.logits(bench, planned.passes) if kind == "soft" else bench.view_logits(
            planned.passes, 20, 3
        )
    bench.store.remove("logits", name)
    assert attempt(planned, bench, study="small")["status"] == "finished"


def _segment(bench: Workbench, passes: tuple[LabelPass, ...]) -> str:
    return segment_name(passes[0], 0)


@pytest.mark.parametrize("stop", [None, 0, "7", -1])
def test_views_that_do_not_say_where_they_end_are_refused(
    stop: object, small: Callable[..., StudySpec], ready: Callable[[StudySpec], Plan], bench: Workbench
) -> None:
    (planned,) = ready(small(*PER_VIEW)).evaluations
    name = _segment(bench, planned.passes)
    _rewritten(bench.store, name, [zeros(48, 10)], stop=stop)
    with pytest.raises(ArtifactError, match=r"'stop'|end at step .*; remove the folder"):
        bench.view_logits(planned.passes, 20, 7)
    row = attempt(planned, bench, study="small")
    assert row["error"].startswith("ArtifactError: ")
    assert row["error"].endswith("made again")


@pytest.mark.parametrize("key", ["seconds", "teacher_test_acc"])
def test_a_manifest_that_lacks_what_a_row_says_is_refused(
    key: str, small: Callable[..., StudySpec], ready: Callable[[StudySpec], Plan], bench: Workbench
) -> None:
    (planned,) = ready(small(SOFT)).evaluations
    (name,) = bench.store.names("logits")
    _rewritten(bench.store, name, [zeros(20, 10)], **{key: None})
    row = attempt(planned, bench, study="small")
    assert row["error"].startswith("ArtifactError: ")
    assert f"has no key '{key}'; remove the folder" in row["error"]


def test_networks_that_say_other_shapes_are_not_put_together(tmp_path: Path) -> None:
    for name, shape in (("a", (4, 3)), ("b", (4, 3)), ("c", (4, 2))):
        (tmp_path / name).mkdir()
        write_logits(tmp_path / name, zeros(*shape))
    assert read_together(tmp_path / n for n in "ab").shape == (2, 4, 3)
    assert read_logits(tmp_path / "c", 4).shape == (4, 2)
    with pytest.raises(ArtifactError, match="4 images and 2 classes, but must have 4 and 3; remove"):
        read_together(tmp_path / n for n in "abc")


def test_views_without_a_noted_size_are_looked_at(
    small: Callable[..., StudySpec], ready: Callable[[StudySpec], Plan], bench: Workbench
) -> None:
    (planned,) = ready(small(*PER_VIEW)).evaluations
    noted = bench.view_logits(planned.passes, 20, 7)[0].size
    said = np.array(read_logits(bench.store.root / "logits" / _segment(bench, planned.passes)))
    assert noted == np.abs(said).max()
    said[3, 1] = -7e4
    _rewritten(bench.store, _segment(bench, planned.passes), [said], size=None)  # as versions before wrote it
    fresh = Workbench(bench.dataset, LocalStore(bench.store.root), bench.device)
    assert fresh.view_logits(planned.passes, 20, 7)[0].size == 7e4
    row = attempt(planned, fresh, study="small")
    assert "labels.codec is fp16, which stores at most 65,504, but the logits reach 70,000" in row["error"]
