"""A site: what any process of a cluster needs to set up its workbench."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch

from raydc import plugins
from raydc.data.dataset import dataset_at
from raydc.spec.evaluation import DatasetSpec
from raydc.store import LocalStore, open_store
from raydc.training.engine import use_cache
from raydc.training.memory import keep_pages
from raydc.workbench import Labeller, Workbench


@dataclass(frozen=True)
class Site:
    """Where the data and the store of a study are; small, and the same for all processes."""

    dataset: DatasetSpec
    pixels: str
    """Name of the decoded images in the store."""
    store_uri: str
    threads: int = 1
    """CPU threads of this process."""

    def bench(self, labeller: Labeller | None = None) -> Workbench:
        """This process's workbench, set up once; on the GPU that Ray gave it, if any."""
        torch.set_num_threads(self.threads)
        bench = _bench(self.dataset, self.pixels, self.store_uri)
        if labeller is not None:
            bench.labeller = labeller
        return bench


@lru_cache(maxsize=1)
def _bench(dataset: DatasetSpec, pixels: str, store_uri: str) -> Workbench:
    store = open_store(store_uri)
    plugins.load()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        keep_pages()
        if isinstance(store, LocalStore):
            use_cache(store.root / "compiled")
    return Workbench(dataset_at(dataset, pixels, store), store, device)
