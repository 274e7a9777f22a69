"""From the logits of a teacher to the probabilities that a student learns; the keys of soft labels."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from raydc.labels import codecs, transforms


@dataclass(frozen=True)
class Softening:
    """Converts the logits of K networks to the probabilities that a student learns.

    mean of logits -> codec -> divide by T, softmax -> drop_class -> swap_rank -> top_k -> renormalise
    """

    temperature: float
    codec: str = "fp16"
    store_top_k: int | None = None
    drop_class: int | None = None
    swap_rank: int | None = None
    top_k: int | None = None
    renormalise: bool = False

    def __call__(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """(probabilities [N, C], logits [N, C] as stored) of logits [K, N, C] and classes [N].

        The logits must have passed `codecs.check`.
        """
        stored = codecs.round_trip(transforms.ensemble(logits), self.codec, self.store_top_k)
        probabilities = transforms.soften(stored, self.temperature)
        if self.drop_class is not None:
            probabilities = transforms.drop_class(probabilities, labels, self.drop_class)
        if self.swap_rank is not None:
            probabilities = transforms.swap_rank(probabilities, self.swap_rank)
        if self.top_k is not None:
            probabilities = transforms.top_k(probabilities, self.top_k)
        if self.renormalise:
            probabilities = transforms.renormalise(probabilities)
        return probabilities, transforms.fill_missing(stored)

    def record_bytes(self, classes: int) -> int:
        """Bytes of one label; with `top_k` it is stored in full if that is smaller."""
        if self.store_top_k is not None:
            keep = min(self.store_top_k, self.top_k or classes)
            return codecs.record_bytes(self.codec, classes, keep)
        whole = codecs.record_bytes(self.codec, classes)
        return min(whole, codecs.record_bytes(self.codec, classes, self.top_k))
