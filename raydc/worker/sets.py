"""Compressed sets of a store, as stored and as network inputs; recently used ones stay in memory."""

from __future__ import annotations

import torch
from torch import Tensor

from raydc.data.dataset import Dataset
from raydc.data.image_set import CompressedSet
from raydc.store.artifact import Artifact, Store, get
from raydc.worker.lru_cache import LruCache


class Sets:
    """The compressed sets of one dataset."""

    def __init__(self, dataset: Dataset, store: Store, device: torch.device) -> None:
        self._dataset = dataset
        self._store = store
        self._device = device
        self._held = LruCache(64, lambda held: held[0].images.nbytes)
        self._inputs = LruCache(16, lambda held: held.nbytes)

    def get(self, name: str) -> tuple[CompressedSet, Artifact]:
        """A compressed set from the store, with what was measured while it was made."""

        def load() -> tuple[CompressedSet, Artifact]:
            artifact = get(self._store, "set", name)
            return CompressedSet.load(artifact.folder), artifact

        return self._held.get(name, load)

    def inputs(self, name: str) -> Tensor:
        """A compressed set as network inputs [N, C, H, W] float32 on the device."""

        def prepare() -> Tensor:
            compressed, _ = self.get(name)
            if compressed.space == "pixel":
                pixels = torch.from_numpy(compressed.images).to(self._device)
                return self._dataset.inputs(pixels)
            assert compressed.space == self._dataset.space, compressed.space
            return torch.from_numpy(compressed.images).to(self._device)

        return self._inputs.get(name, prepare)

    def count(self, name: str) -> int:
        """Number of images in a compressed set, without reading them."""
        if (held := self._held.held(name)) is not None:
            return len(held[0])
        return CompressedSet.count(get(self._store, "set", name).folder)
