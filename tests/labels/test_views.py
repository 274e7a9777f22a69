"""Labels of views: the teacher sees what the student sees, each (view, checkpoint) once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from raydc.augmentation.views import Views
from raydc.data.dataset import Dataset
from raydc.labels import views as view_labels
from raydc.spec.plan import Plan
from raydc.spec.seeding import seed_of
from raydc.spec.study import StudySpec
from raydc.store.local import LocalStore
from raydc.training.inputs import TensorInputs
from raydc.worker.evaluate import evaluate
from raydc.worker.making import make_everything
from raydc.worker.relabeller import labelled
from raydc.worker.workbench import Workbench

PER_VIEW = (
    "base.labels={kind: per_view, temperature: 2}",
    "base.train.augment=[crop, flip, cutmix]",
    "base.train.batch_size=8",  # 20 images: two full batches and one of 4
)
SEVEN = (*PER_VIEW, "base.train.steps=7")


@pytest.fixture
def bench(digits: Dataset, store: LocalStore, tmp_path: Path) -> Workbench:
    """A bench whose store has no logits yet; the session's store keeps teachers and sets."""
    return Workbench(digits, LocalStore(tmp_path), torch.device("cpu"))


def test_a_label_is_what_the_teacher_says_of_the_view(
    small: Callable[..., StudySpec], ready: Callable[[StudySpec], Plan], bench: Workbench
) -> None:
    (one,) = ready(small(*SEVEN)).evaluations
    said, _ = bench.view_logits(one.passes, 20, 7)
    teacher = bench.teacher(one.passes[0]).teacher
    images = bench.set_inputs(one.compressed_set)
    views = Views(one.evaluation.recipe, 20, seed_of("student views", 0), bench.device)
    for step in views.steps(0, 7):
        expected = teacher.logits(TensorInputs(views.render(images, step).images))
        assert torch.equal(said.at(step.epoch, step.batch)[0], expected)
    assert said.rows == 2 * 20 + 8


def test_students_share_views_and_each_is_forwarded_once(
    small: Callable[..., StudySpec], ready: Callable[[StudySpec], Plan], bench: Workbench
) -> None:
    study = small(
        *SEVEN, "grid.labels.temperature=[1, 4]", "grid.train.lr=[0.05, 0.1]", "base.train.view_seed=3"
    )
    plan = ready(study)
    assert len(plan.evaluations) == 4
    assert (plan.forwards(10), plan.naive_forwards(10)) == (48, 4 * 48)
    assert bench.relabeller.images_forwarded == 48
    results = [evaluate(p, bench) for p in plan.evaluations]
    assert bench.relabeller.images_forwarded == 48
    assert {r.labels_bytes for r in results} == {48 * 20}
    assert len({r.test_loss for r in results}) == 4


def test_a_longer_training_labels_only_what_is_missing(
    small: Callable[..., StudySpec],
    ready: Callable[[StudySpec], Plan],
    bench: Workbench,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(view_labels, "SEGMENT_ROWS", 20)
    (short,) = ready(small(*SEVEN)).evaluations
    plan = ready(small(*PER_VIEW, "base.train.steps=9"))
    assert bench.relabeller.images_forwarded == 60
    assert {p.passes[0].id for p in plan.evaluations} == {short.passes[0].id}
    said, artifacts = bench.view_logits(plan.evaluations[0].passes, 20, 9)
    assert len(artifacts) > 2
    whole = Workbench(bench.dataset, LocalStore(bench.store.root / "other"), bench.device)
    make_everything(plan, whole)
    again, _ = whole.view_logits(plan.evaluations[0].passes, 20, 9)
    views = Views(short.evaluation.recipe, 20, seed_of("student views", 0), bench.device)
    for step in views.steps(0, 9):
        assert torch.equal(said.at(step.epoch, step.batch), again.at(step.epoch, step.batch))


def test_pruned_labels_are_used_again_and_take_less(
    small: Callable[..., StudySpec], ready: Callable[[StudySpec], Plan], bench: Workbench
) -> None:
    study = small(*PER_VIEW, "base.train.steps=30", "grid.labels.keep_views=[0.1, 0.2, 1]")
    plan = ready(study)
    assert bench.relabeller.images_forwarded == 200  # the longest serves the others
    sizes = [evaluate(p, bench).labels_bytes for p in plan.evaluations]
    assert sizes == [20 * 20, 20 * 40, 20 * 200]


def test_a_pool_of_views_is_met_evenly() -> None:
    from raydc.spec.evaluation import Recipe

    recipe = Recipe("sgd", 0.1, 0.0, "constant", 8, steps=30, augment=("crop",))

    def met(pool: int, steps: int, key: int = 5) -> list[tuple[int, int]]:
        views = Views(recipe, 20, key, torch.device("cpu"), pool=pool)
        return [(s.epoch, s.batch) for s in views.steps(0, steps)]

    # Three batches an epoch; seven views are two epochs and one batch.
    seven = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0)]
    found = met(7, 126)
    assert found[:7] == seven
    assert set(found) == set(seven)
    # Every epoch meets every batch, and so every image; views of a batch are met alike often.
    assert [batch for _, batch in found] == [0, 1, 2] * 42
    counts = {view: found.count(view) for view in seven}
    assert all(counts[v] == 21 for v in seven if v[1] != 0)
    assert all(counts[v] == 14 for v in seven if v[1] == 0)
    assert met(7, 126, key=6) != found
    assert met(2, 8) == [(0, 0), (0, 1)] * 4
    assert met(1, 4) == [(0, 0)] * 4


def test_the_first_views_of_a_pool_are_those_of_no_pool() -> None:
    from raydc.spec.evaluation import Recipe

    recipe = Recipe("sgd", 0.1, 0.0, "constant", 8, steps=30, augment=("crop",))
    plain = Views(recipe, 20, 5, torch.device("cpu")).steps(0, 4)
    pooled = Views(recipe, 20, 5, torch.device("cpu"), pool=4).steps(0, 4)
    for a, b in zip(plain, pooled, strict=True):
        assert torch.equal(a.index, b.index)
        assert torch.equal(a.draws["crop"], b.draws["crop"])


def test_a_pass_is_labelled_only_when_all_its_views_are(
    small: Callable[..., StudySpec],
    ready: Callable[[StudySpec], Plan],
    planned: Callable[[StudySpec], Plan],
    bench: Workbench,
) -> None:
    ready(small(*SEVEN))
    (longer,) = planned(small(*PER_VIEW, "base.train.steps=8")).passes.values()
    assert not labelled(longer, bench.store)
    bench.ensure(longer)
    assert labelled(longer, bench.store)
    assert bench.relabeller.images_forwarded == 48 + 8


def test_the_same_evaluation_is_equal_bit_for_bit(
    small: Callable[..., StudySpec], ready: Callable[[StudySpec], Plan], bench: Workbench
) -> None:
    (one,) = ready(small(*SEVEN, "grid.labels.codec=[q4]", "grid.labels.keep_views=[0.5]")).evaluations
    assert evaluate(one, bench).test_loss == evaluate(one, bench).test_loss


def test_network_inputs_become_pixels_again(digits: Dataset) -> None:
    pixels = torch.from_numpy(digits.train.images[:5])
    torch.testing.assert_close(digits.scaled(digits.inputs(pixels)) * 255, pixels.float(), atol=1e-3, rtol=0)
