"""(f) Selection: seconds and peak memory of every method for 10 images per class of 50,000, on two cores.

    python -m benchmarks.selection [--ipc N] [--arch ARCH] [--forward N]

The pool has the size of CIFAR-10: 10 classes of 5,000 images of 3 x 32 x 32, records of a scorer of 30
epochs, features of 512 or 2,048 numbers per image; all are synthetic, in memory-mapped files. Each method
runs in its own process, and its seconds include reading its inputs and computing scores from records. The
forward pass of the scorer is timed separately, in images per second: the features of all images are computed
once and stored, and RDED's observer scores 5 crops of 300 images per class (a stand-in scores them in the row
of rded).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.record import publish
from raydc.methods.pool import Made, Pool
from raydc.networks.zoo import build
from raydc.spec import catalog
from raydc.spec.catalog import Method
from raydc.teachers.scores import RECORDED
from raydc.teachers.teacher import Teacher
from raydc.training.inputs import PixelInputs

CLASSES, OF_EACH, SHAPE, EPOCHS = 10, 5_000, (3, 32, 32), 30
DIMENSIONS = (512, 2048)
CORES = 2
MIB = 1 << 20
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "ccs": [{"images.balance": "class"}, {"images.balance": "global"}],
    "pca": [{"images.combine": "1x1"}, {"images.combine": "2x2"}, {"images.combine": "3x3"}],
    "rded": [{"images.combine": "1x1"}, {"images.combine": "2x2"}],
}
"""Settings of some methods that are measured instead of the defaults."""


def make(folder: Path, ipc: int) -> None:
    """Write the files of a pool."""
    generator = np.random.default_rng(0)
    images = CLASSES * OF_EACH
    np.save(folder / "labels.npy", generator.permutation(np.repeat(np.arange(CLASSES), OF_EACH)))
    np.save(folder / "pixels.npy", generator.integers(0, 256, (images, *SHAPE), dtype=np.uint8))
    records = generator.random((1, EPOCHS, len(RECORDED), images), dtype=np.float32)
    np.save(folder / "records.npy", records)
    for size in DIMENSIONS:
        np.save(folder / f"features-{size}.npy", generator.random((images, size), dtype=np.float32))
    labels = torch.arange(CLASSES).repeat_interleave(ipc)
    torch.save({"images": torch.zeros(len(labels), *SHAPE), "labels": labels}, folder / "set.pt")


def select(folder: Path, method: Method, point: dict[str, Any], ipc: int, features: int | None) -> None:
    """Run one method and print its cost; the process does nothing else."""
    code = method.load()
    start, used = time.perf_counter(), time.process_time()
    records = np.load(folder / "records.npy", mmap_mode="r")
    scores = [catalog.SCORES[name] for name in method.scores_of(point)]
    pixels = np.load(folder / "pixels.npy", mmap_mode="r")
    pool = Pool(
        labels=np.load(folder / "labels.npy"),
        classes=tuple(range(CLASSES)),
        ipc=ipc,
        generator=np.random.Generator(np.random.Philox(0)),
        scores={score.name: score.load()(records[:, : score.epochs]) for score in scores},
        take=lambda rows: pixels[rows],
        shape=SHAPE,
        class_names=tuple(map(str, range(CLASSES))),
        features=None if features is None else np.load(folder / f"features-{features}.npy", mmap_mode="r"),
        observe=lambda crops, _: crops.mean((1, 2, 3), dtype=np.float32),
    )
    made = code(pool, **{name.removeprefix("images."): value for name, value in point.items()})
    assert len(made.labels if isinstance(made, Made) else made) == CLASSES * ipc
    report(start, used)


def look(folder: Path, arch: str, images: int) -> None:
    """Compute the features of some images with a network, and print the cost."""
    network = Teacher(build(arch, SHAPE[0], CLASSES, SHAPE[1]), torch.device("cpu"))
    pixels = torch.from_numpy(np.load(folder / "pixels.npy", mmap_mode="c")[:images])
    inputs = PixelInputs(pixels, lambda batch: batch.float() / 255)
    start, used = time.perf_counter(), time.process_time()
    network.features(inputs)
    report(start, used)


def report(start: float, used: float) -> None:
    """Print one line of JSON: wall seconds, CPU seconds, and the peak memory of the process."""
    wall, processor = time.perf_counter() - start, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": wall, "CPU seconds": processor, "peak MiB": round(peak / MIB)}))


def measured(folder: Path, *arguments: str) -> dict[str, Any]:
    """The output of this module when started with `arguments`, on two cores."""
    cores = sorted(os.sched_getaffinity(0))[:CORES]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.selection", "--within", str(folder), *arguments],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def methods(folder: Path, ipc: int) -> list[dict[str, Any]]:
    """One row per method with its default settings, or per variant."""
    rows = []
    for method in catalog.METHODS:
        defaults = {key.name: str(folder / "set.pt") if key.file else key.default for key in method.keys}
        for variant in VARIANTS.get(method.name, [{}]):
            for size in DIMENSIONS if method.needs == "features" else (None,):
                given = json.dumps({**defaults, **variant})
                arguments = ["--method", method.name, "--point", given, "--ipc", str(ipc)]
                taken = measured(folder, *arguments, *(["--features", str(size)] if size else []))
                shown = " ".join(f"{name}={value}" for name, value in variant.items())
                rows.append({"method": method.name, "setting": shown, "features": size, **taken})
                print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--ipc", type=int, default=10, help="images per class")
    parser.add_argument("--arch", default="convnet-d3-w128", help="network whose forward pass is timed")
    parser.add_argument(
        "--forward", type=int, default=5_000, help="number of images in the timed forward pass"
    )
    parser.add_argument("--within", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--method", help=argparse.SUPPRESS)
    parser.add_argument("--point", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--features", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.method is not None:
        method = catalog.METHODS[chosen.method]
        select(chosen.within, method, chosen.point, chosen.ipc, chosen.features)
        return
    if chosen.within is not None:
        look(chosen.within, chosen.arch, chosen.forward)
        return
    load = [round(tasks, 1) for tasks in os.getloadavg()]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, chosen.ipc)
        rows = methods(folder, chosen.ipc)
        taken = measured(folder, "--forward", str(chosen.forward), "--arch", chosen.arch)
    forward = {"arch": chosen.arch, "images/s": round(chosen.forward / taken["seconds"], 1), **taken}
    facts = {"ipc": chosen.ipc, "images": CLASSES * OF_EACH, "load before": load, "forward": forward}
    publish("selection", rows, "cpu", **facts)


if __name__ == "__main__":
    main()
