"""The folder layout of FKD labels (arXiv 2112.01528; as SRe2L, CDA and LPLD publish them).

    epoch_E/batch_B.tar    torch.save of [coordinates [B, 4], flips [B], mix index [B], lambda, box, logits]

Coordinates are top, left, height and width of the crop as fractions of the image; the box is first row, first
column, last row + 1, last column + 1; mix index, lambda and box are None if nothing is mixed. The file does
not record which images a batch contains: that is given by the order of the sampler at labelling time.

A folder contains whole epochs, numbered from 0 without a gap; so are the batches of each, with the same
number in each epoch.

Files are read without executing code. Published ones contain NumPy numbers, so exactly NumPy's scalar, its
dtype and the types int64 and float64 are allowed; files written here contain plain numbers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from raydc.augmentation import operations
from raydc.augmentation.views import Step, Views
from raydc.data.torch_file import flat, read_tensors
from raydc.errors import InputError
from raydc.labels import codecs
from raydc.labels.views import ViewLogits

METADATA_BYTES = 25
"""Bytes that FKD stores per view in addition to its logits: coordinates 16, flip 1, mix index 8; lambda and
box, once per batch, are not counted."""
LARGEST_SIDE = 1 << 16
"""Largest row or column number in a box."""
ROUNDING = 1e-3
"""How far a crop may extend beyond the image: some publish coordinates in float16."""
PARTS = ("coordinates", "flips", "mix index", "lambda", "box", "logits")

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
    """Views of a batch of B images and the teacher's logits for them."""

    coordinates: Tensor
    """[B, 4] float32: top, left, height, width, inside the image up to `ROUNDING`."""
    flips: Tensor
    """[B] bool."""
    logits: Tensor
    """[B, C] float16, finite; at least one image and two classes."""
    partner: Tensor | None = None
    """[B] int64, position in the batch of the image that each one is mixed with; None without a mix."""
    share: float | None = None
    """Lambda: the weight of the image itself, 0 to 1; only with partners."""
    box: tuple[int, int, int, int] | None = None
    """CutMix's box (first row, first column, last row + 1, last column + 1), at most `LARGEST_SIDE`; None for
    mixup."""

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
        return operations.blended(images, partner, share)


def write_batch(path: Path, batch: FkdBatch) -> None:
    """Write one file; its folder must exist. `InputError` for a batch that `read_batch` would refuse."""
    try:
        batch = replace(batch, logits=_half(_numbers(batch.logits, "logits")))
        _check(batch)
    except ValueError as error:
        raise InputError(f"{path}: it would not be a valid batch of FKD labels ({error})") from None
    content = [
        batch.coordinates,
        batch.flips.tolist(),
        batch.partner,
        batch.share,
        None if batch.box is None else list(batch.box),
        batch.logits,
    ]
    torch.save(content, path)


def read_batch(path: Path) -> FkdBatch:
    """Read one file; `InputError` if it is damaged, contains something else, or would execute code."""
    try:
        content = read_tensors(path, allowed=_ALLOWED)
        if not isinstance(content, list | tuple) or len(content) != len(PARTS):
            raise ValueError(f"it is not a list of {', '.join(PARTS)}")
        coordinates, flips, partner, share, box, logits = content
        batch = FkdBatch(
            coordinates=_numbers(coordinates, "coordinates").float(),
            flips=_flips(flips),
            logits=_half(_numbers(logits, "logits")),
            partner=None if partner is None else _partner(partner),
            share=None if share is None else _number(share, "lambda"),
            box=None if box is None else _box(box),
        )
        _check(batch)
    except OverflowError:
        raise InputError(f"{path}: it is not a batch of FKD labels (a number has too many bits)") from None
    except (ValueError, TypeError, RuntimeError) as error:
        reason = str(error).strip().split("\n")[0][:160]
        raise InputError(f"{path}: it is not a batch of FKD labels ({reason})") from None
    return batch


def _numbers(value: Any, name: str) -> Tensor:
    """A tensor or a list of numbers as a tensor of real numbers, with its own dtype."""
    if not isinstance(value, Tensor | list | tuple):
        raise ValueError(f"its {name} are not a tensor")
    numbers = torch.as_tensor(flat(value)).detach()
    if numbers.is_complex():
        raise ValueError(f"its {name} are complex")
    return numbers


def _half(logits: Tensor) -> Tensor:
    """Logits as float16; `ValueError` for values that it cannot store, which would become infinite."""
    if logits.dtype == torch.bool:
        raise ValueError("its logits are Boolean, not numbers")
    half = logits.half()
    if half.isnan().any():
        raise ValueError("some of its logits are NaN")
    if half.isinf().any():
        raise ValueError("its logits overflow float16, whose largest value is 65,504")
    return half


def _flips(value: Any) -> Tensor:
    numbers = _numbers(value, "flips")
    flips = numbers.bool()
    if (numbers != flips).any():
        raise ValueError("its flips are not all true or false")
    return flips


def _partner(value: Any) -> Tensor:
    numbers = _numbers(value, "mix indices")
    partner = numbers.long()
    if numbers.dtype == torch.bool or (numbers != partner).any():
        raise ValueError("its mix indices are not whole numbers")
    return partner


def _number(value: Any, name: str) -> float:
    """One number: Python's, NumPy's, or a tensor of one."""
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise ValueError(f"its {name} is not a number")
    return float(value)


def _box(value: Any) -> tuple[int, int, int, int]:
    if isinstance(value, Tensor) and value.ndim == 1:
        value = list(value[:5])
    if not isinstance(value, list | tuple) or len(value) != 4:
        raise ValueError("its box does not have four numbers")
    numbers = [_number(number, "box") for number in value]
    if not all(number.is_integer() for number in numbers):
        raise ValueError("its box has numbers that are not whole")
    top, left, bottom, right = (int(number) for number in numbers)
    return top, left, bottom, right


def _check(batch: FkdBatch) -> None:
    """`ValueError` if the parts do not match or are out of range."""
    if batch.logits.ndim != 2 or len(batch.logits) < 1 or batch.logits.shape[1] < 2:
        shape = list(batch.logits.shape)
        raise ValueError(f"its logits are {shape}, but must be [images, classes] with at least two classes")
    count = len(batch.logits)
    if batch.coordinates.shape != (count, 4) or batch.flips.shape != (count,):
        raise ValueError("the lengths of its parts differ")
    _check_crops(batch.coordinates)
    if batch.partner is None:
        if batch.share is not None or batch.box is not None:
            raise ValueError("it has a lambda or a box, but no mix indices")
        return
    if batch.partner.shape != (count,) or (batch.partner < 0).any() or (batch.partner >= count).any():
        raise ValueError("its mix indices are out of the batch's range")
    if batch.share is None and batch.box is None:
        raise ValueError("it is mixed, but has neither lambda nor box")
    if batch.share is not None and not 0 <= batch.share <= 1:
        raise ValueError(f"its lambda is {batch.share:g}, but must be 0 to 1")
    if batch.box is not None:
        top, left, bottom, right = batch.box
        if not (0 <= top <= bottom <= LARGEST_SIDE and 0 <= left <= right <= LARGEST_SIDE):
            raise ValueError(
                "its box is not first row, first column, last row + 1, last column + 1, in order and "
                f"0 to {LARGEST_SIDE:,}"
            )


def _check_crops(coordinates: Tensor) -> None:
    # Written so that NaN fails the test.
    start, size = coordinates[:, :2], coordinates[:, 2:]
    inside = (start >= -ROUNDING) & (size > 0) & (start + size <= 1 + ROUNDING)
    if not inside.all():
        row = int((~inside.all(1)).nonzero()[0, 0])
        values = ", ".join(f"{number:.4g}" for number in coordinates[row].tolist())
        raise ValueError(f"crop {row} is not inside the image: top, left, height, width are {values}")


def batches(folder: Path) -> list[tuple[int, int, Path]]:
    """(epoch, batch, file) of a folder of labels, in the order of training.

    `InputError` if an epoch or a batch is missing or duplicated, or if epochs have different numbers of
    batches; only the last one may have fewer.
    """
    try:
        if not folder.is_dir():
            what = "is a file" if folder.exists() else "does not exist"
            raise InputError(f"{folder}: it {what}; give the folder that holds epoch_0, epoch_1, ...")
        epochs = [_numbered(epoch, "batch_", ".tar") for epoch in _numbered(folder, "epoch_", "")]
    except OSError as error:
        raise InputError(f"{folder}: it cannot be listed ({error.strerror})") from None
    if not epochs:
        raise InputError(f"{folder}: it contains no epoch_*/batch_*.tar; give the folder of the labels")
    counts = [len(files) for files in epochs]
    most, last = max(counts), len(counts) - 1
    if not most:
        raise InputError(f"{folder}: its epochs contain no batch_*.tar; give the folder of the labels")
    for epoch, count in enumerate(counts):
        if count < most and (epoch < last or not count):
            raise InputError(
                f"{folder}: epoch {epoch} lacks batch_{count}.tar, but epoch {counts.index(most)} has {most} "
                "batches; copy the folder again, or remove incomplete epochs"
            )
    return [(epoch, batch, path) for epoch, files in enumerate(epochs) for batch, path in enumerate(files)]


def _numbered(folder: Path, before: str, after: str) -> list[Path]:
    """Entries of a folder named `before` N `after`, for N = 0, 1, ...; other names are ignored."""
    found: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        match = re.fullmatch(f"{re.escape(before)}([0-9]+){re.escape(after)}", path.name)
        if match is None:
            continue
        if path.is_dir() == bool(after):
            kind, wanted = ("folder", "file") if after else ("file", "folder")
            raise InputError(f"{path}: it is a {kind}, but must be a {wanted} of labels; copy it again")
        other = found.setdefault(int(match[1]), path)
        if other != path:
            raise InputError(
                f"{folder}: {other.name} and {path.name} have the same number; remove one of them"
            )
    for number, there in enumerate(sorted(found)):
        if number != there:
            raise InputError(f"{folder}: {before}{number}{after} is missing, but {found[there].name} exists")
    return [found[number] for number in sorted(found)]


class FkdFolder:
    """A folder of labels: its sizes are read at once, each file on request.

    Sizes come from the first and the last batch of epoch 0. Every file is checked against them when it is
    read, so each epoch has the same images and classes, and only its last batch may be smaller.
    """

    epochs: int
    steps: int
    """Number of batches in all epochs; the last epoch may have fewer than the others."""
    per_epoch: int
    """Number of batches per epoch."""
    batch_size: int
    """Number of images per batch; the last batch of an epoch may have fewer."""
    images: int
    """Number of images per epoch."""
    classes: int

    def __init__(self, folder: Path) -> None:
        """Raise `InputError` if `batches` or `read_batch` does, or if the two files do not match."""
        self._folder = folder
        files = batches(folder)
        self._files = {(epoch, number): path for epoch, number, path in files}
        self.epochs, self.steps = files[-1][0] + 1, len(files)
        self.per_epoch = sum(epoch == 0 for epoch, _, _ in files)
        last = self.per_epoch - 1
        self.batch_size, self.classes = read_batch(self._files[0, 0]).logits.shape
        final, classes = read_batch(self._files[0, last]).logits.shape
        if final > self.batch_size or classes != self.classes:
            raise InputError(
                f"{self._files[0, last]}: it has {final} images and {classes} classes, but batch_0 has "
                f"{self.batch_size} images and {self.classes} classes; the last batch of an epoch may have "
                "fewer images, and nothing else may differ"
            )
        self.images = self.batch_size * last + final

    def batch(self, epoch: int, number: int) -> FkdBatch:
        """Batch `number` of an epoch; `InputError` if it is missing, unreadable or has other sizes."""
        path = self._files.get((epoch, number))
        if path is None:
            raise InputError(
                f"{self._folder}: it has no batch {number} of epoch {epoch}, but {self.steps} batches, "
                f"{self.per_epoch} per epoch"
            )
        batch = read_batch(path)
        images = self.batch_size
        if number == self.per_epoch - 1:
            images = self.images - self.batch_size * number
        there, classes = batch.logits.shape
        if (there, classes) != (images, self.classes):
            raise InputError(
                f"{path}: it has {there} images and {classes} classes, but epoch 0 has {images} images and "
                f"{self.classes} classes; all files must come from one labelling run"
            )
        return batch


def export_views(folder: Path, views: Views, logits: ViewLogits, resolution: int, steps: int) -> int:
    """Write the first `steps` views and their labels (the mean of the networks); returns the number of files.

    FKD supports rrc, flip, mixup and cutmix, and logits in fp16; `InputError` for others, and for less than
    an epoch of views, from which a reader could not infer the number of images.
    """
    check_views(views, steps)
    if logits.size > codecs.Float16.largest:
        raise InputError(
            f"the labels reach {logits.size:,.0f}, but FKD files store fp16, whose largest value is "
            f"{codecs.Float16.largest:,.0f}; export the labels of another teacher"
        )
    for step in views.steps(0, steps):
        mean = logits.at(step.epoch, step.batch).mean(0).cpu()
        where = folder / f"epoch_{step.epoch}"
        where.mkdir(parents=True, exist_ok=True)
        batch = _as_fkd(step, mean, views.recipe.crop_scale, resolution)
        write_batch(where / f"batch_{step.batch}.tar", batch)
    return steps


def check_views(views: Views, steps: int) -> None:
    """Raise `InputError` if FKD files cannot store the first `steps` of `views`."""
    if steps < views.per_epoch:
        raise InputError(
            f"the views end after {steps} steps, but an FKD folder needs a whole epoch of "
            f"{views.per_epoch}; train longer, or raise labels.keep_views"
        )
    unknown = [name for name in views.recipe.augment if name not in ("rrc", "flip", "mixup", "cutmix")]
    if unknown:
        raise InputError(
            f"train.augment has {unknown[0]}, which FKD files cannot store; they support rrc, "
            "flip, mixup and cutmix"
        )


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
