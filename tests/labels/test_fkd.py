"""FKD files: written, read back and rendered as the views that they name; nothing in them is executed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from raydc.augmentation.views import Views
from raydc.errors import InputError
from raydc.evaluate import make_everything
from raydc.labels.fkd import FkdBatch, batches, export_views, read_batch, write_batch
from raydc.seeding import seed_of
from raydc.spec.plan import Plan
from raydc.spec.study import Study
from raydc.workbench import Workbench


@pytest.mark.parametrize("augment", ["[rrc, flip, cutmix]", "[rrc, mixup]", "[flip]", "none"])
def test_exported_views_come_back_as_they_were(
    small: Callable[..., Study],
    planned: Callable[[Study], Plan],
    bench: Workbench,
    tmp_path: Path,
    augment: str,
) -> None:
    study = small(
        "base.labels={kind: per_view}",
        f"base.train.augment={augment}",
        "base.train.batch_size=8",
        "base.train.steps=7",
    )
    plan = planned(study)
    make_everything(plan, bench)
    (one,) = plan.evaluations
    logits, _ = bench.view_logits(one.passes, 20, 7)
    views = Views(one.evaluation.recipe, 20, seed_of("student views", 0), bench.device)
    assert export_views(tmp_path, views, logits, bench.dataset.resolution, 7) == 7
    files = list(batches(tmp_path))
    assert [(e, b) for e, b, _ in files] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0)]
    images = bench.set_inputs(one.compressed_set)
    for step, (_, _, path) in zip(views.steps(0, 7), files, strict=True):
        batch = read_batch(path)
        torch.testing.assert_close(batch.render(images[step.index]), views.render(images, step).images)
        torch.testing.assert_close(
            batch.logits.float(), logits.at(step.epoch, step.batch)[0], atol=2e-2, rtol=1e-3
        )


def test_other_views_cannot_be_exported(tmp_path: Path) -> None:
    from raydc.spec.evaluation import Recipe

    views = Views(Recipe("sgd", 0.1, 0, "constant", 8, augment=("dsa",)), 8, 1, torch.device("cpu"))
    with pytest.raises(InputError, match="dsa"):
        export_views(tmp_path, views, None, 8, 1)


def published(**changes: object) -> list[object]:
    """A batch as published files hold it: NumPy numbers in the box, a NumPy lambda."""
    content: dict[str, object] = {
        "coordinates": torch.tensor([[0.1, 0.2, 0.5, 0.6]] * 4),
        "flips": [True, False, True, False],
        "partner": torch.tensor([1, 0, 3, 2]),
        "share": np.float64(0.25),
        "box": [np.int64(1), np.int64(2), np.int64(5), np.int64(7)],
        "logits": torch.zeros(4, 3, dtype=torch.float16),
    }
    return list({**content, **changes}.values())


def test_published_files_with_numpy_numbers_are_read(tmp_path: Path) -> None:
    path = tmp_path / "batch_0.tar"
    torch.save(published(), path)
    batch = read_batch(path)
    assert batch.box == (1, 2, 5, 7)
    assert batch.share == 0.25
    assert batch.render(torch.randn(4, 3, 8, 8)).shape == (4, 3, 8, 8)


class _Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize(
    "content",
    [
        published(flips=[True]),
        published(partner=torch.tensor([9, 0, 1, 2])),
        published(coordinates=torch.zeros(3, 4)),
        published(share=None, box=None),
        published()[:5],
        "text",
    ],
)
def test_what_is_no_batch_is_refused(tmp_path: Path, content: object) -> None:
    path = tmp_path / "batch_0.tar"
    torch.save(content, path)
    with pytest.raises(InputError, match="no batch of FKD labels"):
        read_batch(path)


def test_code_is_not_executed(tmp_path: Path) -> None:
    path, mark = tmp_path / "batch_0.tar", tmp_path / "mark"
    torch.save(published(share=_Evil(mark)), path)
    with pytest.raises(InputError, match="no batch of FKD labels"):
        read_batch(path)
    assert not mark.exists()


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "batch_0.tar"
    write_batch(path, FkdBatch(torch.zeros(2, 4), torch.zeros(2).bool(), torch.zeros(2, 3).half()))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="no batch of FKD labels"):
        read_batch(path)


def test_a_folder_without_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no epoch_"):
        list(batches(tmp_path))
