"""How a student meets its targets. Temperature T always divides logits: softmax(logits / T).

| name    | formula (mean over the batch)                               | source |
| ------- | ----------------------------------------------------------- | ------ |
| ce      | -sum y log softmax(z)                                        | hard labels |
| soft_ce | -sum p_T log softmax(z); the student at T = 1                | arXiv 2406.10485 |
| kl      | sum p_T (log p_T - log softmax(z / T)), no T^2               | FKD, RDED, arXiv 2502.06434 |
| kl_t2   | T^2 times kl                                                 | Hinton et al. 2015 |
| mse_ce  | mean (z - z_teacher)^2 + 0.1 ce with the class              | G-VBSM, arXiv 2311.17950 |
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from raydc.augmentation.views import View

MSE_CE_WEIGHT = 0.1
"""Weight of the cross-entropy in mse_ce (G-VBSM on ImageNet-1K and Tiny-ImageNet)."""


@dataclass(frozen=True)
class Targets:
    """What the students of a set learn; rows are images, or views of a batch."""

    probabilities: Tensor
    """[N, C]; rows sum to one unless a transform removed mass."""
    classes: Tensor
    """[N, C], one-hot classes."""
    logits: Tensor | None = None
    """[N, C], the teacher's logits, where there are any."""
    temperature: float = 1.0
    """T that made `probabilities` of the logits."""

    @staticmethod
    def hard(labels: Tensor, classes: int) -> Targets:
        """One-hot targets of labels [N] int64."""
        one_hot = F.one_hot(labels, classes).float()
        return Targets(one_hot, one_hot)

    def of(self, view: View) -> Targets:
        """Targets of a view's images, mixed as the images are."""
        return replace(
            self,
            probabilities=view.mix(self.probabilities),
            classes=view.mix(self.classes),
            logits=None if self.logits is None else view.mix(self.logits),
        )

    def to(self, device: torch.device) -> Targets:
        return replace(
            self,
            probabilities=self.probabilities.to(device),
            classes=self.classes.to(device),
            logits=None if self.logits is None else self.logits.to(device),
        )


def full_precision(logits: Tensor) -> Tensor:
    """Logits in float32 at least, so that losses are not summed in bf16."""
    return logits if logits.dtype == torch.float64 else logits.float()


def loss_of(name: str, student: Tensor, targets: Targets) -> Tensor:
    """The loss `name` of student logits [B, C] against the targets of the same batch; a scalar."""
    if name in ("ce", "soft_ce"):
        return F.cross_entropy(student, targets.probabilities)
    if name in ("kl", "kl_t2"):
        temperature = targets.temperature
        log_student = F.log_softmax(student / temperature, dim=1)
        loss = F.kl_div(log_student, targets.probabilities, reduction="batchmean")
        return loss * temperature**2 if name == "kl_t2" else loss
    assert name == "mse_ce", name
    assert targets.logits is not None, "mse_ce needs the teacher's logits"
    return F.mse_loss(student, targets.logits) + MSE_CE_WEIGHT * F.cross_entropy(student, targets.classes)
