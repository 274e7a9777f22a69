"""Equivalence: packs against single students, and views against the CPU's, on any device.

    python -m benchmarks.equivalence [--data DIR] [--device cuda] [--students 100]

Losses of every kernel against single runs (float64, 200 steps; float32 with TF32 off, 20 steps), pixels of
every augmentation against the CPU's, and paired test accuracies of the same students packed and alone. Needs
neither Ray nor pydantic nor pytest.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.record import publish
from benchmarks.setting import bench_of, dataset_of, evaluation, plan_of
from raydc.augmentation.views import Views
from raydc.networks.zoo import build, initialised
from raydc.spec.evaluation import Recipe
from raydc.training.fit import fit
from raydc.training.forwards import is_compiled, kernels_for
from raydc.training.inputs import TensorInputs
from raydc.training.losses import Targets
from raydc.training.packed import Member, fit_pack
from raydc.training.targets import StaticTargets
from raydc.worker.evaluate import attempt
from raydc.worker.packs import attempt_packs

ARCH, SHAPE, IMAGES = "convnet-d3-w32", (3, 10, 32), 50
RECIPE = Recipe("sgd", 0.01, 5e-4, "quarters", 20, momentum=0.9, steps=200, loss="kl", augment=("dsa",))
DOUBLE, SINGLE = "worst relative loss, float64, 200 steps", "float32, 20 steps"
AUGMENTATIONS = ("dsa", "crop", "rrc", "flip", "cutout", "mixup", "cutmix")


def members(device: torch.device, dtype: torch.dtype, steps: int) -> list[Member]:
    """Four students that differ in images, labels, temperature, rates and seed."""
    found = []
    for number in range(4):
        generator = torch.Generator().manual_seed(number)
        images = torch.randn(IMAGES, 3, 32, 32, generator=generator).to(device, dtype)
        logits = (torch.randn(IMAGES, 10, generator=generator) * 3).to(device, dtype)
        temperature = 1.0 + number
        classes = torch.eye(10, dtype=dtype, device=device)[torch.arange(IMAGES, device=device) % 10]
        targets = Targets(torch.softmax(logits / temperature, 1), classes, logits, temperature)
        state = initialised(ARCH, *SHAPE, "student", number).to(device, dtype).state_dict()
        recipe = replace(RECIPE, steps=steps, lr=0.01 * (1 + number), weight_decay=5e-4 * number)
        found.append(Member(state, TensorInputs(images), StaticTargets(targets), recipe, 7 + number))
    return found


def worst_loss(kernel: str, device: torch.device, dtype: torch.dtype, steps: int) -> float:
    """Largest relative difference of a loss between a pack and its students alone."""
    pack = members(device, dtype, steps)
    together = fit_pack(build(ARCH, *SHAPE).to(device), pack, kernel, device).losses
    worst = 0.0
    for number, member in enumerate(pack):
        network = build(ARCH, *SHAPE).to(device, dtype)
        network.load_state_dict(member.state)
        alone = fit(network, member.inputs, member.targets, member.recipe, key=member.key, device=device)
        worst = max(worst, float(((together[number] - alone.losses) / alone.losses).abs().max()))
    return worst


def worst_pixel(name: str, device: torch.device) -> float:
    """Largest difference of a pixel in standardised units x 1/255 between the device and the CPU."""
    recipe = replace(RECIPE, augment=(name,))
    images = torch.randn(IMAGES, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    worst = 0.0
    here = Views(recipe, IMAGES, 5, torch.device("cpu"))
    there = Views(recipe, IMAGES, 5, device)
    for a, b in zip(here.steps(0, 50), there.steps(0, 50), strict=True):
        x, y = here.render(images, a).images, there.render(images.to(device), b).images.cpu()
        worst = max(worst, float((x - y).abs().max()))
    return worst * 255


def paired_accuracies(arguments: argparse.Namespace) -> dict[str, Any]:
    """Test accuracies of the same students packed and alone."""
    dataset = dataset_of(arguments.data, arguments.work)
    arch = "convnet-d3-w32" if arguments.data else "convnet-d2-w8"
    common = {"images__ipc": 10, "student__arch": arch, "train__steps": arguments.steps}
    plan = plan_of(dataset, [evaluation(dataset, seed, **common) for seed in range(arguments.students)])
    bench = bench_of(dataset, arguments.work, arguments.device, plan)
    if arguments.device == "cpu":
        bench.engines.kernel = lambda *_: "grouped"  # type: ignore[method-assign]
        bench.engines.students_at_once = lambda *_: 25  # type: ignore[method-assign]
    attempts = [(planned, 1) for planned in plan.evaluations]
    packed = [row for rows in attempt_packs(attempts, bench, study="x") for row in rows]
    alone = [attempt(planned, bench, study="x") for planned, _ in attempts]
    differences = [a["test_acc"] - b["test_acc"] for a, b in zip(packed, alone, strict=True)]
    from scipy import stats

    half = float(stats.t.ppf(0.975, len(differences) - 1)) * statistics.stdev(differences)
    half /= len(differences) ** 0.5
    mean = statistics.mean(differences)
    return {
        "students": len(differences),
        "arch": arch,
        "steps": arguments.steps,
        "packed": statistics.mean(r["test_acc"] for r in packed),
        "alone": statistics.mean(r["test_acc"] for r in alone),
        "difference": mean,
        "low": mean - half,
        "high": mean + half,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", help="folder of CIFAR-10 as Parquet; without it, digits")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--students", type=int, default=100)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--work", type=Path, default=Path("runs/benchmarks"))
    chosen = parser.parse_args()
    device = torch.device(chosen.device)
    torch.set_num_threads(1)
    rows = []
    for kernel in kernels_for(build(ARCH, *SHAPE)):
        if is_compiled(kernel) and chosen.device == "cpu":
            continue  # tests/training/test_packed.py compiles a small one
        rows.append(
            {
                "kernel": kernel,
                DOUBLE: worst_loss(kernel, device, torch.float64, 200),
                SINGLE: worst_loss(kernel, device, torch.float32, 20),
            }
        )
    pixels = {name: worst_pixel(name, device) for name in AUGMENTATIONS} if chosen.device != "cpu" else {}
    accuracies = paired_accuracies(chosen)
    publish(
        f"equivalence-{chosen.device}",
        rows,
        chosen.device,
        paired_accuracies=accuracies,
        worst_pixel_difference_in_255ths=pixels,
    )
    broken = [row["kernel"] for row in rows if row[DOUBLE] >= 1e-8 or row[SINGLE] >= 1e-4]
    broken += [name for name, worst in pixels.items() if worst >= 1]
    if max(abs(accuracies["low"]), abs(accuracies["high"])) > 0.005:
        broken.append("paired accuracies")
    if broken:
        raise SystemExit(f"not equivalent: {', '.join(broken)}")


if __name__ == "__main__":
    main()
