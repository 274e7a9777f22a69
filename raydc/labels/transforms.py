"""Label transforms: pure functions on logits or probabilities [N, C].

Their order is fixed: mean of logits -> codec -> divide by T, softmax -> drop_class -> swap_rank ->
top_k -> renormalise.
"""

from __future__ import annotations

import torch
from torch import Tensor


def ensemble(logits: Tensor) -> Tensor:
    """Mean of the logits of several networks: [K, N, C] -> [N, C] (arXiv 2406.10485)."""
    return logits.mean(0)


def soften(logits: Tensor, temperature: float) -> Tensor:
    """softmax(logits / T): [N, C] -> [N, C], rows sum to one."""
    return torch.softmax(logits / temperature, dim=1)


def fill_missing(logits: Tensor) -> Tensor:
    """Logits [N, C] with values that were not stored (-inf) replaced by the smallest of their row."""
    missing = logits == -torch.inf
    smallest = logits.masked_fill(missing, torch.inf).amin(1, keepdim=True)
    return torch.where(missing, smallest, logits)


def drop_class(probabilities: Tensor, labels: Tensor, dropped: int) -> Tensor:
    """Set the class `dropped` to 0 in the labels of other classes' images; not renormalised.

    The images of the class itself keep their labels (`treat_label` of arXiv 2406.10485).
    """
    kept = probabilities.clone()
    kept[labels != dropped, dropped] = 0
    return kept


def swap_rank(probabilities: Tensor, rank: int) -> Tensor:
    """Exchange the probability at `rank` (1 = largest) with the smallest, in every row."""
    order = probabilities.argsort(dim=1, descending=True, stable=True)
    chosen, smallest = order[:, rank - 1 : rank], order[:, -1:]
    swapped = probabilities.clone()
    swapped.scatter_(1, chosen, probabilities.gather(1, smallest))
    swapped.scatter_(1, smallest, probabilities.gather(1, chosen))
    return swapped


def top_k(probabilities: Tensor, k: int) -> Tensor:
    """Keep the k largest of every row and set the rest to 0; the kept mass stays below one."""
    values, places = probabilities.topk(k, dim=1)
    return torch.zeros_like(probabilities).scatter_(1, places, values)


def renormalise(probabilities: Tensor) -> Tensor:
    """Scale rows to sum to one; a row without mass becomes uniform."""
    mass = probabilities.sum(1, keepdim=True)
    uniform = torch.full_like(probabilities, 1 / probabilities.shape[1])
    return torch.where(mass > 0, probabilities / mass.clamp_min(1e-30), uniform)
