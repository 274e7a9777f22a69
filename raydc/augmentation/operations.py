"""Augmentations of a batch, each image with its own parameters, without a loop over images.

All functions take images [B, C, H, W] (standardised, so that 0 is the mean of the data) and uniform numbers
`u` [B, 4], and return images of the same shape. `strength` scales the ranges; 1 is as published. The entries
in the catalogue declare further arguments (raydc.spec.training_entries.Augmentation).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

CROP_RATIO = 0.125
CUTOUT_RATIO = 0.5
SCALE_RATIO = 1.2
ROTATE_DEGREES = 15.0
BRIGHTNESS, SATURATION, CONTRAST = 1.0, 2.0, 0.5


def flip(images: Tensor, u: Tensor) -> Tensor:
    """Flip horizontally with probability one half."""
    return torch.where(_column(u, 0) < 0.5, images.flip(3), images)


def crop(images: Tensor, u: Tensor, strength: float = 1.0) -> Tensor:
    """Shift by up to an eighth of the side along each axis; padded with 0."""
    height, width = images.shape[2:]
    reach = [int(CROP_RATIO * strength * side + 0.5) for side in (height, width)]
    down, right = (torch.floor(u[:, axis] * (2 * reach[axis] + 1)).long() - reach[axis] for axis in (0, 1))
    rows = torch.arange(height, device=images.device) + down[:, None]
    columns = torch.arange(width, device=images.device) + right[:, None]
    inside = ((rows >= 0) & (rows < height))[:, None, :, None] & ((columns >= 0) & (columns < width))[
        :, None, None, :
    ]
    rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    batch = torch.arange(len(images), device=images.device)
    # Advanced indices first, so the gathered channels come last.
    shifted = images[batch[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return shifted.permute(0, 3, 1, 2) * inside


def cutout(images: Tensor, u: Tensor, strength: float = 1.0) -> Tensor:
    """Set a square of half the side to 0; its centre is uniform over the image."""
    height, width = images.shape[2:]
    covered = []
    for axis, side in enumerate((height, width)):
        size = min(side, int(CUTOUT_RATIO * strength * side + 0.5))
        centre = torch.floor(u[:, axis] * (side + (1 - size % 2))).long()
        first = (centre - size // 2)[:, None]
        place = torch.arange(side, device=images.device)
        covered.append((place >= first) & (place < first + size))
    return images * ~(covered[0][:, None, :, None] & covered[1][:, None, None, :])


def scale(images: Tensor, u: Tensor, strength: float = 1.0) -> Tensor:
    """Stretch each axis by its own factor in [1 / 1.2, 1.2]."""
    ratio = 1 + (SCALE_RATIO - 1) * strength
    factor = u[:, :2] * (ratio - 1 / ratio) + 1 / ratio
    zero = torch.zeros_like(factor[:, 0])
    return _affine(images, factor[:, 0], zero, zero, factor[:, 1])


def rotate(images: Tensor, u: Tensor, strength: float = 1.0) -> Tensor:
    """Rotate by up to 15 degrees."""
    angle = (u[:, 0] - 0.5) * 2 * math.radians(ROTATE_DEGREES * strength)
    cosine, sine = angle.cos(), angle.sin()
    return _affine(images, cosine, -sine, sine, cosine)


def colour(images: Tensor, u: Tensor, strength: float = 1.0) -> Tensor:
    """Brightness, then saturation, then contrast."""
    images = images + (_column(u, 0) - 0.5) * BRIGHTNESS * strength
    grey = images.mean(1, keepdim=True)
    images = (images - grey) * (1 + (_column(u, 1) * SATURATION - 1) * strength) + grey
    mean = images.mean((1, 2, 3), keepdim=True)
    return (images - mean) * (1 + (_column(u, 2) - 0.5) * 2 * CONTRAST * strength) + mean


def dsa(images: Tensor, u: Tensor, choice: str, strength: float = 1.0) -> Tensor:
    """One operation of differentiable siamese augmentation (arXiv 2102.08259, mode S).

    Strategy color_crop_cutout_flip_scale_rotate (VICO-UoE/DatasetCondensation: utils.py).
    """
    if choice == "flip":
        return flip(images, u)
    by_name = {"colour": colour, "crop": crop, "cutout": cutout, "scale": scale, "rotate": rotate}
    return by_name[choice](images, u, strength)


def rrc(images: Tensor, u: Tensor, crop_scale: tuple[float, float] = (0.08, 1.0)) -> Tensor:
    """Random resized crop: area uniform, log aspect uniform in 3/4 to 4/3, bilinear.

    Like torchvision's RandomResizedCrop, but a window that does not fit is clamped instead of drawn again,
    so that a view needs a fixed number of random numbers.
    """
    return resized(images, *rrc_window(u, crop_scale))


def rrc_window(u: Tensor, area: tuple[float, float]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(x, y, width, height) [B] of random windows: the centre in [-1, 1], the sides as fractions."""
    part = u[:, 0] * (area[1] - area[0]) + area[0]
    aspect = torch.exp((u[:, 1] * 2 - 1) * math.log(4 / 3))
    width, height = (part * aspect).sqrt().clamp(max=1), (part / aspect).sqrt().clamp(max=1)
    x = (u[:, 2] * 2 - 1) * (1 - width)
    y = (u[:, 3] * 2 - 1) * (1 - height)
    return x, y, width, height


def resized(images: Tensor, x: Tensor, y: Tensor, width: Tensor, height: Tensor) -> Tensor:
    """A window of each image, as returned by `rrc_window`, resized to the image size; bilinear."""
    columns, rows = _places(images, align_corners=False)
    grid = torch.stack(
        torch.broadcast_tensors(
            _column3(width) * columns + _column3(x), _column3(height) * rows + _column3(y)
        ),
        3,
    )
    return F.grid_sample(images, grid.to(images.dtype), padding_mode="border", align_corners=False)


def tile_crop(
    images: Tensor, u: Tensor, tile: Tensor, grid: Tensor, crop_scale: tuple[float, float] = (0.08, 1.0)
) -> Tensor:
    """`rrc` inside one random tile of each image; pixels of other tiles are not used.

    tile: [B, 4] uniform numbers that choose the tile; grid: [B, 2] int64, rows and columns of tiles, whose
    borders are at round(i side / tiles).
    """
    x, y, width, height = rrc_window(u, crop_scale)
    windows, limits = [], []
    for axis, (centre, length) in enumerate(((y, height), (x, width))):
        side = images.shape[2 + axis]
        tiles = grid[:, axis]
        number = torch.floor(tile[:, axis] * tiles)
        # Rounds half to even, like Python's round.
        first, last = (torch.round(n * side / tiles) for n in (number, number + 1))
        part = (last - first) / side
        windows.append(((first + last) / side - 1 + centre * part, length * part))
        limits.append(((2 * first + 1) / side - 1, (2 * last - 1) / side - 1))
    (y, height), (x, width) = windows
    (top, bottom), (left, right) = limits
    across, down = _places(images, align_corners=False)
    columns = (_column3(width) * across + _column3(x)).clamp(_column3(left), _column3(right))
    rows = (_column3(height) * down + _column3(y)).clamp(_column3(top), _column3(bottom))
    sampled = torch.stack(torch.broadcast_tensors(columns, rows), 3).to(images.dtype)
    return F.grid_sample(images, sampled, padding_mode="border", align_corners=False)


def patch_shuffle(images: Tensor, rows: Tensor, columns: Tensor, grid: Tensor) -> Tensor:
    """Shuffle the columns of tiles, then the rows (LINs-lab/RDED: validation/utils.py).

    rows, columns: [B, 4] uniform numbers; grid: [B, 2] int64, at most 4 rows and columns of tiles.
    """
    height, width = images.shape[2:]
    down = _strips(rows, grid[:, 0], height)
    across = _strips(columns, grid[:, 1], width)
    batch = torch.arange(len(images), device=images.device)
    # Advanced indices first, so the gathered channels come last.
    shuffled = images[batch[:, None, None], :, down[:, :, None], across[:, None, :]]
    return shuffled.permute(0, 3, 1, 2)


def _strips(u: Tensor, tiles: Tensor, side: int) -> Tensor:
    """[B, side], the source position of each pixel of a side when its strips are shuffled."""
    number = torch.arange(u.shape[1], device=u.device)
    # Strips beyond an image's number of tiles stay at the end and are empty.
    order = torch.where(number < tiles[:, None], u, number + 1.0).argsort(dim=1, stable=True)
    bounds = torch.arange(u.shape[1] + 1, device=u.device) * side / tiles[:, None]
    bounds = torch.round(bounds).long().clamp_max(side)
    first, length = bounds[:, :-1].gather(1, order), bounds.diff(dim=1).gather(1, order)
    ends = length.cumsum(1)
    place = torch.arange(side, device=u.device).expand(len(u), -1).contiguous()
    strip = torch.searchsorted(ends, place, right=True)
    return place + (first - ends + length).gather(1, strip)


def mixup(images: Tensor, partner: Tensor, share: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """share * image + (1 - share) * its partner; partner: [B] positions, share: [B]."""
    del u
    return blended(images, partner, share), share


def blended(images: Tensor, partner: Tensor, share: Tensor) -> Tensor:
    """share * image + (1 - share) * its partner."""
    share = share.view(-1, 1, 1, 1)
    return images * share + images[partner] * (1 - share)


def cutmix(images: Tensor, partner: Tensor, share: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Replace a box of area 1 - share by that of the partner (clovaai/CutMix-PyTorch: train.py).

    share: [B]; u: [B, 2], the centre of the box. Returns the images and the fraction [B] of each image that
    remains.
    """
    return pasted(images, partner, cutmix_box(share, u, images.shape[2], images.shape[3]))


def cutmix_box(share: Tensor, u: Tensor, height: int, width: int) -> Tensor:
    """[B, 4] int64: first row, first column, last row + 1 and last column + 1 of boxes."""
    cut = (1 - share).sqrt()
    low, high = [], []
    for axis, side in enumerate((height, width)):
        half = torch.div((side * cut).long(), 2, rounding_mode="floor")
        middle = torch.floor(u[:, axis] * side).long()
        low.append((middle - half).clamp(0, side))
        high.append((middle + half).clamp(0, side))
    return torch.stack(low + high, 1)


def pasted(images: Tensor, partner: Tensor, box: Tensor) -> tuple[Tensor, Tensor]:
    """The images with boxes [B, 4] of their partners, and the fraction [B] of each image that remains."""
    inside = []
    for axis, side in enumerate(images.shape[2:]):
        place = torch.arange(side, device=images.device)
        inside.append((place >= box[:, axis, None]) & (place < box[:, axis + 2, None]))
    both = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    remaining = 1 - inside[0].sum(1) * inside[1].sum(1) / (images.shape[2] * images.shape[3])
    return torch.where(both, images[partner], images), remaining


def _column(u: Tensor, index: int) -> Tensor:
    return u[:, index].view(-1, 1, 1, 1)


def _column3(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1)


def _places(images: Tensor, align_corners: bool) -> tuple[Tensor, Tensor]:
    """Coordinates in [-1, 1] of the pixels: columns [1, 1, W] and rows [1, H, 1]."""
    height, width = images.shape[2:]
    found = []
    for side in (width, height):
        number = torch.arange(side, device=images.device, dtype=torch.float32)
        found.append((2 * number - side + 1) / max(1, side - 1 if align_corners else side))
    return found[0].view(1, 1, -1), found[1].view(1, -1, 1)


def _affine(images: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """Sample at the coordinates transformed by [[a, b], [c, d]]; 0 outside the image.

    Uses sums instead of a matrix product, which TF32 would round.
    """
    across, down = _places(images, align_corners=True)
    columns = _column3(a) * across + _column3(b) * down
    rows = _column3(c) * across + _column3(d) * down
    grid = torch.stack([columns, rows], 3)
    return F.grid_sample(images, grid.to(images.dtype), align_corners=True)
