"""ZCA whitening as in the papers' code (kornia's ZCAWhitening, eps 0.1, pixels in [0, 1])."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raydc.data.array_file import read_array

EPSILON = 0.1
_BLOCK = 2048


@dataclass(frozen=True)
class Whitening:
    """x -> (x - mean) @ matrix on flattened images."""

    mean: Tensor
    """[D] float32."""
    matrix: Tensor
    """[D, D] float32, symmetric."""

    def apply(self, images: Tensor) -> Tensor:
        """Whiten images [N, C, H, W] float32 in [0, 1]; same shape."""
        mean, matrix = self.mean.to(images.device), self.matrix.to(images.device)
        blocks = [(block.flatten(1) - mean) @ matrix for block in images.split(_BLOCK)]
        return torch.cat(blocks).view_as(images)

    def invert(self, inputs: Tensor) -> Tensor:
        """Undo the whitening: inputs [N, C, H, W] float32 -> images in [0, 1]; same shape."""
        mean, matrix = self.mean.to(inputs.device), self.matrix.to(inputs.device)
        return (torch.linalg.solve(matrix, inputs.flatten(1).T).T + mean).view_as(inputs)

    def save(self, folder: Path) -> None:
        np.save(folder / "mean.npy", self.mean.numpy())
        np.save(folder / "matrix.npy", self.matrix.numpy())

    @staticmethod
    def load(folder: Path) -> Whitening:
        return Whitening(
            torch.from_numpy(read_array(folder / "mean.npy", mapped=True)),
            torch.from_numpy(read_array(folder / "matrix.npy", mapped=True)),
        )


def fit_whitening(images: NDArray[np.uint8], epsilon: float = EPSILON) -> Whitening:
    """Fit the whitening to images [N, C, H, W] uint8.

    With covariance S = U diag(s) U^T (unbiased), the matrix is U diag(1 / sqrt(s + epsilon)) U^T.
    Sums are computed in blocks, so the memory is O(D^2).
    """
    count, size = len(images), int(np.prod(images.shape[1:]))
    total = torch.zeros(size, dtype=torch.float64)
    for start in range(0, count, _BLOCK):
        total += _flat(images[start : start + _BLOCK]).double().sum(0)
    mean = (total / count).float()
    scatter = torch.zeros(size, size, dtype=torch.float64)
    for start in range(0, count, _BLOCK):
        centred = _flat(images[start : start + _BLOCK]) - mean
        scatter += (centred.T @ centred).double()
    values, vectors = torch.linalg.eigh(scatter / max(1, count - 1))
    scale = torch.rsqrt(values.clamp_min(0) + epsilon)
    return Whitening(mean, ((vectors * scale) @ vectors.T).float())


def _flat(images: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(images).float().flatten(1).div_(255)
