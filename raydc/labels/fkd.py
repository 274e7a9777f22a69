"""The folder layout of FKD labels (arXiv 2112.01528; as SRe2L, CDA and LPLD publish them).

    epoch_E/batch_B.tar    torch.save of [coordinates [B, 4], flips [B], mix index [B], lambda, box, logits]

Coordinates are top, left, height and width of the crop as parts of the image; the box is first row, first
column, last row + 1, last column + 1; mix index, lambda and box are None where nothing is mixed. Which
images a batch holds is not in the file: it is the order of the sampler that labelled.

Files are read without executing anything. Published ones hold NumPy numbers, so exactly NumPy's scalar, its
dtype and the types int64 and float64 are allowed; files written here hold plain numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from raydc.augmentation import operations
from raydc.augmentation.views import Step, Views
from raydc.data.torch_file import flat, read_tensors
from raydc.errors import InputError
from raydc.labels.views import ViewLogits

METADATA_BYTES = 25
"""What FKD stores of a view beside its logits: coordinates 16, flip 1, mix index 8; lambda and box, once a
batch, are not counted."""

_SCALAR: Any = np.float64(0).__reduce__()[0]
_ALLOWED: list[Any] = [
    (_SCALAR, "numpy.core.multiarray.scalar"),
    _SCALAR,
    np.dtype,
    type(np.dtype(np.int64)),
    type(np.dtype(np.float64)),
]


@dataclass(frozen=True)
class FkdBatch:
    """Views of a batch of B images and what the teacher says of them."""

    coordinates: Tensor
    """[B, 4] float32: top, left, height, width."""
    flips: Tensor
    """[B] bool."""
    logits: Tensor
    """[B, C] float16."""
    partner: Tensor | None = None
    """[B] int64, the position that each image is mixed with."""
    share: float | None = None
    """Lambda: the part of the image itself."""
    box: tuple[int, int, int, int] | None = None
    """CutMix's box; None for mixup."""

    def render(self, images: Tensor) -> Tensor:
        """The views of the batch's images [B, C, H, W]."""
        top, left, height, width = self.coordinates.to(images.device).unbind(1)
        windows = (2 * left + width - 1, 2 * top + height - 1, width, height)
        images = operations.resized(images, *windows)
        images = torch.where(self.flips.to(images.device).view(-1, 1, 1, 1), images.flip(3), images)
        if self.partner is None:
            return images
        partner = self.partner.to(images.device)
        if self.box is not None:
            box = torch.tensor(self.box, device=images.device).expand(len(images), 4)
            return operations.pasted(images, partner, box)[0]
        assert self.share is not None
        share = images.new_full((len(images),), self.share)
        return operations.mixup(images, partner, share)


def write_batch(path: Path, batch: FkdBatch) -> None:
    """Write one file; its folder must exist."""
    content = [
        batch.coordinates,
        batch.flips.tolist(),
        batch.partner,
        batch.share,
        None if batch.box is None else list(batch.box),
        batch.logits.half(),
    ]
    torch.save(content, path)


def read_batch(path: Path) -> FkdBatch:
    """Read one file; `InputError` if it is damaged, holds something else, or would execute code."""
    try:
        content = read_tensors(path, allowed=_ALLOWED)
        coordinates, flips, partner, share, box, logits = content
        batch = FkdBatch(
            coordinates=torch.as_tensor(flat(coordinates), dtype=torch.float32),
            flips=torch.as_tensor(flat(flips), dtype=torch.bool),
            logits=torch.as_tensor(flat(logits), dtype=torch.float16),
            partner=None if partner is None else torch.as_tensor(flat(partner), dtype=torch.int64),
            share=None if share is None else float(share),
            box=None if box is None else _box(box),
        )
        _check(batch)
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        reason = str(error).strip().split("\n")[0][:160]
        raise InputError(f"{path}: it is no batch of FKD labels ({reason})") from None
    return batch


def _box(box: Any) -> tuple[int, int, int, int]:
    top, left, bottom, right = (int(number) for number in box[:5])
    return top, left, bottom, right


def _check(batch: FkdBatch) -> None:
    count = len(batch.logits)
    if batch.logits.ndim != 2 or batch.coordinates.shape != (count, 4) or batch.flips.shape != (count,):
        raise ValueError("the lengths of its parts differ")
    if batch.partner is not None and not (
        batch.partner.shape == (count,) and bool((batch.partner >= 0).all() & (batch.partner < count).all())
    ):
        raise ValueError("its mix index leaves the batch")
    if batch.partner is not None and batch.share is None and batch.box is None:
        raise ValueError("it is mixed, but has neither lambda nor box")


def batches(folder: Path) -> Iterator[tuple[int, int, Path]]:
    """(epoch, batch, file) of a folder of labels, in the order of training."""
    found = []
    for path in folder.glob("epoch_*/batch_*.tar"):
        match = re.fullmatch(r"epoch_(\d+)/batch_(\d+)\.tar", f"{path.parent.name}/{path.name}")
        if match is not None:
            found.append((int(match[1]), int(match[2]), path))
    if not found:
        raise InputError(f"{folder}: it holds no epoch_*/batch_*.tar; give the folder of the labels")
    yield from sorted(found)


def export_views(folder: Path, views: Views, logits: ViewLogits, resolution: int, steps: int) -> int:
    """Write the first `steps` views and their labels (the mean of the networks); returns the files.

    FKD can say rrc, flip, mixup and cutmix; `InputError` for views that are made otherwise.
    """
    unknown = [name for name in views.recipe.augment if name not in ("rrc", "flip", "mixup", "cutmix")]
    if unknown:
        raise InputError(
            f"train.augment has {unknown[0]}, which FKD files cannot say; they know rrc, flip, mixup, cutmix"
        )
    for step in views.steps(0, steps):
        said = logits.at(step.epoch, step.batch).mean(0).cpu()
        where = folder / f"epoch_{step.epoch}"
        where.mkdir(parents=True, exist_ok=True)
        batch = _as_fkd(step, said, views.recipe.crop_scale, resolution)
        write_batch(where / f"batch_{step.batch}.tar", batch)
    return steps


def _as_fkd(step: Step, logits: Tensor, area: tuple[float, float], resolution: int) -> FkdBatch:
    count = len(logits)
    coordinates = torch.tensor([0.0, 0.0, 1.0, 1.0]).repeat(count, 1)
    flips = torch.zeros(count, dtype=torch.bool)
    if "rrc" in step.draws:
        x, y, width, height = operations.rrc_window(step.draws["rrc"].cpu(), area)
        coordinates = torch.stack([(1 + y - height) / 2, (1 + x - width) / 2, height, width], 1)
    if "flip" in step.draws:
        flips = step.draws["flip"][:, 0].cpu() < 0.5
    box = None
    if step.mix == "cutmix":
        assert step.share is not None
        u = step.draws["mix"][:1, :2].cpu()
        box = _box(operations.cutmix_box(step.share.cpu().view(1), u, resolution, resolution)[0].tolist())
    return FkdBatch(
        coordinates,
        flips,
        logits,
        partner=None if step.partner is None else step.partner.cpu(),
        share=None if step.share is None else float(step.share),
        box=box,
    )
