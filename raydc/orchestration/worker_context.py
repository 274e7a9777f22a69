"""The worker context: what a process of a cluster needs to set up its workbench."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch

from raydc.data.dataset import dataset_from
from raydc.spec import plugins
from raydc.spec.evaluation import DatasetSpec
from raydc.store.artifact import Artifact, get
from raydc.store.local import LocalStore
from raydc.store.opening import open_store
from raydc.training.compiling import use_cache
from raydc.training.memory import keep_pages
from raydc.worker.workbench import Labeller, Workbench


@dataclass(frozen=True)
class WorkerContext:
    """The data and the store of a study; small, and the same for all processes."""

    dataset: DatasetSpec
    pixels: str
    """Name of the decoded images in the store."""
    store_uri: str
    threads: int = 1
    """Number of CPU threads of this process."""

    def bench(self, labeller: Labeller | None = None) -> Workbench:
        """This process's workbench, on the GPU that Ray gave it, if any.

        It is set up once, and again if the dataset's images were rebuilt; `ArtifactError` if they are
        missing.
        """
        torch.set_num_threads(self.threads)
        bench, opened = _bench(self.dataset, self.pixels, self.store_uri)
        if bench.store.find("pixels", self.pixels) is not opened:
            _bench.cache_clear()
            bench, _ = _bench(self.dataset, self.pixels, self.store_uri)
        if labeller is not None:
            bench.labeller = labeller
        return bench


@lru_cache(maxsize=1)
def _bench(dataset: DatasetSpec, pixels: str, store_uri: str) -> tuple[Workbench, Artifact]:
    """A workbench, and the artifact of images that it has opened."""
    store = open_store(store_uri)
    plugins.load()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        keep_pages()
    use_cache(store.root / "compiled" if isinstance(store, LocalStore) else None)
    images = get(store, "pixels", pixels)
    return Workbench(dataset_from(dataset, images, store), store, device), images
