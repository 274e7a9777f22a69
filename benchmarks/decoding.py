"""Encoded data: images decoded per second, and training with decoding in the background.

    python -m benchmarks.decoding

JPEGs of 500 x 375 pixels, resized and cropped to 224 x 224. Training: a ConvNet with one thread, and one
thread that decodes; `serial` decodes each batch on request, `resident` has all pixels in memory.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.record import publish
from raydc.data.dataset import Dataset, Part, open_dataset
from raydc.networks.zoo import build
from raydc.spec.evaluation import DatasetSpec, Recipe
from raydc.store.local import LocalStore
from raydc.training.fit import fit
from raydc.training.inputs import Index, Inputs, StreamedInputs, part_inputs
from raydc.training.losses import Targets
from raydc.training.targets import StaticTargets

CLASSES = 2
RECIPE = Recipe(optimizer="sgd", lr=0.01, weight_decay=0.0, schedule="constant", batch_size=64, epochs=2)


class Serial(StreamedInputs):
    """Decodes each batch on request, as a loop without a loader."""

    def each(self, asked: Iterable[Index]) -> Iterator[Tensor]:
        for index in asked:
            yield next(super().each([index]))


def write_images(root: Path, count: int) -> None:
    generator = np.random.default_rng(0)
    for split, images in (("train", count), ("test", CLASSES)):
        for number in range(images):
            coarse = generator.integers(0, 256, (24, 32, 3), dtype=np.uint8)
            smooth = np.asarray(Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC), int)
            noisy = (smooth + generator.integers(-12, 13, smooth.shape)).clip(0, 255).astype(np.uint8)
            path = root / split / str(number % CLASSES) / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noisy).save(path, quality=90)


def train_seconds(dataset: Dataset, inputs: Inputs) -> float:
    torch.manual_seed(0)
    network = build("convnet-d3-w1", 3, CLASSES, 224)
    targets = StaticTargets(Targets.hard(torch.from_numpy(dataset.train.labels), CLASSES))
    return fit(network, inputs, targets, RECIPE, key=0, device=torch.device("cpu")).train_seconds


def decoding_seconds(part: Part) -> float:
    start = time.perf_counter()
    for _ in part.blocks(64):
        pass
    return time.perf_counter() - start


def keep(best: dict[tuple[str, int], float], what: tuple[str, int], rate: float) -> None:
    best[what] = max(rate, best.get(what, 0.0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=int, default=640)
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds; the best one counts")
    chosen = parser.parse_args()
    device = torch.device("cpu")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_images(root / "images", chosen.images)
        spec = DatasetSpec(
            "images", "folder", location=str(root / "images"), resolution=224, val_fraction=0.0
        )
        store = LocalStore(root / "store")
        plain = open_dataset(spec, store)
        few = replace(spec, cache_limit_gib=1e-6)
        parts = {}
        for workers in (1, 2):
            torch.set_num_threads(workers)
            parts[workers] = open_dataset(few, store).train
            decoding_seconds(parts[workers])  # warm-up: starts the threads
        torch.set_num_threads(1)
        encoded = open_dataset(few, store)
        ways: dict[str, Inputs] = {
            "resident": part_inputs(plain, plain.train, device),
            "serial": Serial(encoded.train, encoded.inputs, device),
            "ahead": part_inputs(encoded, encoded.train, device),
        }
        best: dict[tuple[str, int], float] = {}
        for _ in range(chosen.rounds):
            for workers, part in parts.items():
                keep(best, ("decoding", workers), len(part) / decoding_seconds(part))
            for name, inputs in ways.items():
                rate = RECIPE.total_steps(len(inputs)) * RECIPE.batch_size / train_seconds(plain, inputs)
                keep(best, (f"training, {name}", 1), rate)
    for (what, workers), rate in sorted(best.items()):
        rows.append({"what": what, "workers": workers, "images_per_second": rate})
    publish("decoding", rows, "cpu", load=os.getloadavg()[0])


if __name__ == "__main__":
    main()
