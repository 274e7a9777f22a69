"""(b) Label service: images per second for 1, 4 and 16 clients, against a bare forward of the same teacher.

    python -m benchmarks.label_service [--data DIR] [--device cuda]

Each client keeps eight label passes open (a study's label stage keeps 64); every pass goes through the queue,
the forward thread and the store, as in a study. The bare forward labels the same images from memory and
stores nothing. Both alternate in one process.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.record import publish
from benchmarks.setting import bench_of, dataset_of, evaluation, plan_of
from raydc.spec.plan import LabelPass
from raydc.store.local import LocalStore
from raydc.training.memory import keep_pages
from raydc.training.optimizer import tensor_cores
from raydc.worker.label_service import LabelService
from raydc.worker.making import make
from raydc.worker.planned_work import work_of
from raydc.worker.workbench import Workbench

CLIENTS = (1, 4, 16)
OPEN = 8
"""Number of open passes per client."""


def bare(bench: Workbench, passes: list[LabelPass], batch: int) -> float:
    """Seconds to forward all images, `batch` at a time."""
    network = bench.teacher(passes[0]).teacher.network
    images = torch.cat([bench.set_inputs(p.compressed_set) for p in passes])
    _synchronise(bench.device)
    start = time.perf_counter()
    with torch.inference_mode(), tensor_cores("fp32"):
        logits = torch.cat([network(part).cpu() for part in images.split(batch)])
    assert len(logits) == len(images)
    return time.perf_counter() - start


def served(bench: Workbench, passes: list[LabelPass], clients: int) -> tuple[float, int]:
    """(seconds until all clients have their labels, images forwarded)."""

    async def client(service: LabelService, mine: list[LabelPass]) -> None:
        room = asyncio.Semaphore(OPEN)

        async def ask(label_pass: LabelPass) -> None:
            async with room:
                await service.label(label_pass)

        await asyncio.gather(*map(ask, mine))

    async def everyone() -> None:
        service = LabelService(bench)
        await asyncio.gather(*(client(service, passes[i::clients]) for i in range(clients)))

    before = bench.relabeller.images_forwarded
    start = time.perf_counter()
    asyncio.run(everyone())
    return time.perf_counter() - start, bench.relabeller.images_forwarded - before


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", help="folder of CIFAR-10 as Parquet; without it, digits")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--arch", default="convnet-d3-w128")
    parser.add_argument("--sets", type=int, default=16, help="number of compressed sets to label")
    parser.add_argument("--ipc", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path("runs/benchmarks"))
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.device == "cpu":
        keep_pages()
    dataset = dataset_of(chosen.data, chosen.work)
    evaluations = [
        evaluation(
            dataset, seed, chosen.arch, images__ipc=chosen.ipc, labels__kind="soft", student__arch=chosen.arch
        )
        for seed in range(chosen.sets)
    ]
    plan = plan_of(dataset, evaluations)
    made = bench_of(dataset, chosen.work, chosen.device)
    for work in work_of(plan, dataset.classes):
        if work.label_pass is None:
            make(work, made)
    passes = list(plan.passes.values())
    images = sum(p.forwards(chosen.ipc * dataset.classes) for p in passes)
    seconds: dict[str, list[float]] = {"bare": []} | {f"{c} clients": [] for c in CLIENTS}
    once = []
    for _ in range(chosen.rounds):
        batch = 256
        seconds["bare"].append(bare(made, passes, batch))
        for clients in CLIENTS:
            # A separate store, with everything except the labels.
            with tempfile.TemporaryDirectory(dir=chosen.work) as folder:
                for kind in ("checkpoint", "set"):
                    shutil.copytree(chosen.work / "store" / kind, Path(folder) / kind)
                bench = Workbench(dataset, LocalStore(Path(folder)), made.device)
                bench.teacher(passes[0])
                for label_pass in passes:
                    bench.set_inputs(label_pass.compressed_set)
                taken, forwarded = served(bench, passes, clients)
                seconds[f"{clients} clients"].append(taken)
                once.append(forwarded / images)
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    rows = [
        {"what": name, "images/s": images / taken, "of bare": middle["bare"] / taken}
        for name, taken in middle.items()
    ]
    data = "cifar10" if chosen.data else "digits"
    publish(
        f"label-service-{data}-{chosen.device}",
        rows,
        chosen.device,
        arch=chosen.arch,
        images=images,
        images_a_pass=chosen.ipc * dataset.classes,
        forwards_done_over_unique=max(once),
        rounds=chosen.rounds,
    )


if __name__ == "__main__":
    main()
