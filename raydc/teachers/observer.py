"""The observer of RDED (arXiv 2312.03526): a frozen network that scores how realistic a crop is."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from raydc.data.dataset import Dataset
from raydc.teachers.checkpoint import Loaded
from raydc.training.inputs import TensorInputs

BLOCK = 256
"""Number of crops that are prepared together."""


class Observer:
    """Scores crops by their cross-entropy with their classes; smaller is more realistic.

    A crop is put into the middle of an image of the mean colour, which is 0 in standardised inputs
    (LINs-lab/RDED: synthesize/utils.py pads with 0 and does not scale).
    """

    def __init__(self, dataset: Dataset, loaded: Loaded) -> None:
        self._resolution = dataset.resolution
        self._mean = torch.from_numpy(dataset.mean).view(1, -1, 1, 1) * 255
        self._loaded = loaded

    def __call__(self, crops: NDArray[np.uint8], labels: NDArray[np.int64]) -> NDArray[np.float32]:
        """crops [n, C, h, w] uint8, at most as large as an image; labels [n] -> [n] float32."""
        losses = [
            F.cross_entropy(self._logits(pixels), wanted, reduction="none")
            for pixels, wanted in zip(
                torch.from_numpy(crops).split(BLOCK), torch.from_numpy(labels).split(BLOCK), strict=True
            )
        ]
        return torch.cat(losses).numpy()

    def _logits(self, crops: torch.Tensor) -> torch.Tensor:
        teacher = self._loaded.teacher
        count, channels, height, width = crops.shape
        whole = self._mean.expand(count, channels, self._resolution, self._resolution).clone()
        top, left = (self._resolution - height) // 2, (self._resolution - width) // 2
        whole[:, :, top : top + height, left : left + width] = crops
        return teacher.logits(TensorInputs(self._loaded.inputs(whole.to(teacher.device))))
