"""(a) Students: raydc against a plain reference loop, in turns, on one device.

    python -m benchmarks.students                       digits, one CPU thread each
    python -m benchmarks.students --data DIR            CIFAR-10, ConvNetD3 width 128, IPC 1, 10, 50
    python -m benchmarks.students --data DIR --device cuda [--precision tf32|bf16]

Each measurement has its own process (they set allocator and precision differently), the sides alternate, and
medians are compared. A student of the label-worth protocol has 3,000 epochs and 16 test passes, on both
sides.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import reference_loop
from benchmarks.record import publish
from benchmarks.setting import bench_of, dataset_of, evaluation, plan_of
from raydc.networks.zoo import build, initialised
from raydc.spec.plan import Planned
from raydc.training.compiling import use_cache
from raydc.training.engine import NetworkSlot
from raydc.training.memory import keep_pages
from raydc.training.metrics import measure
from raydc.training.optimizer import tensor_cores
from raydc.training.packed import Member, fit_pack
from raydc.training.targets import StaticTargets
from raydc.worker.evaluate import evaluate
from raydc.worker.making import make
from raydc.worker.prepared import new_student, prepare
from raydc.worker.set_work import SetWork
from raydc.worker.workbench import Workbench

ALL_IPC = [1, 10, 50]
EPOCHS, TEST_EVERY = 3000, 200
CPU_STEPS = {1: 120, 10: 30, 50: 8}
SMALL_STEPS = 300
GPU_STEPS = 960
"""Fifteen chunks of parameters, so that the draws before the first timed step have little effect."""
GPU_STUDY = 1000
"""Number of students of a shape in the study for which the kernel is selected."""


def protocol_steps(ipc: int) -> int:
    """Number of steps of a student of the protocol on sets of ten classes."""
    return EPOCHS * -(-ipc * 10 // reference_loop.BATCH)


def planned_student(bench: Workbench, arch: str, ipc: int, steps: int, precision: str, seed: int) -> Planned:
    """A student on random images with hard labels and DSA."""
    one = evaluation(
        bench.dataset,
        seed,
        images__ipc=ipc,
        student__arch=arch,
        train__steps=steps,
        train__precision=precision,
    )
    plan = plan_of(bench.dataset, [one])
    make(SetWork(next(iter(plan.sets.values()))), bench)
    return plan.evaluations[0]


def raydc_cpu(bench: Workbench, arch: str, ipc: int, steps: int, precision: str, seed: int) -> dict[str, Any]:
    """One student as a worker on a CPU core trains it."""
    keep_pages()
    use_cache(Path(bench.store.uri) / "compiled")
    # Long enough to be compiled, as a complete student of the protocol would be.
    planned = planned_student(bench, arch, ipc, steps, precision, seed)
    slot = bench.engines.slot(arch)
    whole = planned_student(bench, arch, ipc, protocol_steps(ipc), precision, seed).evaluation.recipe
    chosen = slot.engine(whole, ipc * bench.dataset.classes)
    slot.engine = lambda recipe, images: chosen  # type: ignore[method-assign]
    bench.test  # noqa: B018 (decoded before anything is timed)
    measured = evaluate(planned, bench)
    return {
        "step_seconds": measured.train_seconds / measured.steps,
        "test_seconds": timed_test(bench, slot, measured.engine, precision)[0],
        "test_acc": measured.test_acc,
        "students": 1,
        "engine": measured.engine,
    }


def timed_test(bench: Workbench, slot: NetworkSlot, engine: str, precision: str) -> tuple[float, float]:
    """(median seconds of a test pass, accuracy) of the network in its current state."""
    images, labels = bench.test
    forward = slot.forward(engine)
    seconds, accuracy = [], 0.0
    for _ in range(reference_loop.TESTS):
        start = time.perf_counter()
        accuracy = measure(slot.network, images, labels, bench.dataset.classes, precision, forward).accuracy
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), accuracy


def raydc_cuda(
    bench: Workbench, arch: str, ipc: int, steps: int, precision: str, students: int
) -> dict[str, Any]:
    """Train a pack of `students`; 0 for as many as `raydc run` would use."""
    use_cache(Path(bench.store.uri) / "compiled")
    slot = bench.engines.slot(arch)
    images = ipc * bench.dataset.classes
    first = planned_student(bench, arch, ipc, steps, precision, 0).evaluation
    most = students or bench.engines.students_at_once(first)
    ready = [
        prepare(planned_student(bench, arch, ipc, steps, precision, seed), bench) for seed in range(most)
    ]
    members = [
        Member(
            {n: v.cuda() for n, v in new_student(p.planned, bench).items()},
            p.inputs,
            p.labels.source,
            p.recipe,
            p.view_key,
            images=p.planned.compressed_set,
        )
        for p in ready
    ]
    # Selected as for complete students of the protocol.
    whole = planned_student(bench, arch, ipc, protocol_steps(ipc), precision, 0).evaluation.recipe
    kernel = bench.engines.kernel(
        arch, [replace(m, recipe=whole) for m in members], None, max(most, GPU_STUDY)
    )
    tests = (EPOCHS // TEST_EVERY + 1) * max(most, GPU_STUDY)
    engine = slot.warm_test(bench.engines.test_engine(arch, precision, tests), precision)
    done = fit_pack(slot.network, members, kernel, bench.device)
    accuracies = []
    for state in done.states[: students or 1]:
        slot.load(state)
        test_seconds, accuracy = timed_test(bench, slot, engine, precision)
        accuracies.append(accuracy)
    batch = min(first.recipe.batch_size, images)
    return {
        "step_seconds": done.train_seconds / steps / most,
        "test_seconds": test_seconds,
        "test_acc": accuracies[0],
        "accuracies": accuracies,
        "students": most,
        "engine": f"packed-{kernel}",
        "bare_step_seconds": bare_step(bench, arch, most * batch, precision) / most,
    }


def bare_step(bench: Workbench, arch: str, images: int, precision: str) -> float:
    """Seconds of one forward, backward and update of a single network over `images` images."""
    data = bench.dataset
    network = build(arch, data.channels, data.classes, data.resolution).to(bench.device)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, fused=True)
    batch = torch.randn(images, data.channels, data.resolution, data.resolution, device=bench.device)
    labels = torch.arange(images, device=bench.device) % data.classes
    bf16 = precision == "bf16"
    seconds = []
    with tensor_cores(precision):
        for _ in range(13):
            torch.cuda.synchronize()
            start = time.perf_counter()
            with torch.autocast("cuda", torch.bfloat16, enabled=bf16):
                logits = network(batch)
            torch.nn.functional.cross_entropy(logits.float(), labels).backward()
            optimizer.step()
            optimizer.zero_grad()
            torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[3:])


def reference(bench: Workbench, arch: str, ipc: int, steps: int, precision: str, seed: int) -> dict[str, Any]:
    """The reference loop on the same images, labels and initial weights."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    ready = prepare(planned_student(bench, arch, ipc, steps, precision, seed), bench)
    data = bench.dataset
    network = initialised(arch, data.channels, data.classes, data.resolution, "student", seed)
    images, labels = bench.test
    test: tuple[Tensor, Tensor] = (images.take(None), labels)
    assert isinstance(ready.labels.source, StaticTargets)
    targets = ready.labels.source.targets.probabilities
    torch.manual_seed(seed)
    done = reference_loop.train(
        network.to(bench.device),
        ready.inputs.images,
        targets,
        test,
        steps,
        lr=ready.recipe.lr,
        bf16=precision == "bf16",
    )
    return {"step_seconds": done.step_seconds, "test_seconds": done.test_seconds, "test_acc": done.test_acc}


def measure_one(side: str, arguments: argparse.Namespace, ipc: int, steps: int, seed: int) -> dict[str, Any]:
    """One measurement in its own process."""
    command = [sys.executable, "-m", "benchmarks.students", "--side", side, "--device", arguments.device]
    command += ["--arch", arguments.arch, "--precision", arguments.precision, "--work", str(arguments.work)]
    command += ["--ipc", str(ipc), "--steps", str(steps), "--seed", str(seed)]
    command += ["--accuracy", str(arguments.accuracy)]
    command += ["--data", arguments.data] if arguments.data else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def side(arguments: argparse.Namespace) -> None:
    """The main function of a measuring process."""
    torch.set_num_threads(1)
    dataset = dataset_of(arguments.data, arguments.work)
    bench = bench_of(dataset, arguments.work, arguments.device)
    ipc, steps, seed = arguments.ipc[0], arguments.steps, arguments.seed
    if arguments.side == "reference":
        found = reference(bench, arguments.arch, ipc, steps, arguments.precision, seed)
    elif arguments.device == "cpu":
        found = raydc_cpu(bench, arguments.arch, ipc, steps, arguments.precision, seed)
    else:
        found = raydc_cuda(bench, arguments.arch, ipc, steps, arguments.precision, arguments.accuracy)
    print(json.dumps(found))


def student_seconds(found: dict[str, Any], steps: int) -> float:
    """Seconds of a complete student of the protocol: all steps, a test every 200 epochs and one at the
    end."""
    return float(found["step_seconds"] * steps + found["test_seconds"] * (EPOCHS // TEST_EVERY + 1))


def compare(arguments: argparse.Namespace) -> None:
    """Measure both sides in turns and print ratios."""
    rows = []
    for ipc in arguments.ipc:
        if arguments.device == "cuda":
            steps = GPU_STEPS
        else:
            steps = CPU_STEPS.get(ipc, 8) if arguments.data else SMALL_STEPS
        found: dict[str, list[dict[str, Any]]] = {"reference": [], "raydc": []}
        for number in range(arguments.rounds):
            for name, results in found.items():
                results.append(measure_one(name, arguments, ipc, steps, number))
                print(f"ipc {ipc}, round {number + 1}, {name}: {results[-1]}", flush=True)
        middle = {
            name: {k: statistics.median(r[k] for r in results) for k in ("step_seconds", "test_seconds")}
            for name, results in found.items()
        }
        hours = {n: 3600 / student_seconds(m, protocol_steps(ipc)) for n, m in middle.items()}
        last = found["raydc"][-1]
        rows.append(
            {
                "ipc": ipc,
                "engine": last["engine"],
                "students": last["students"],
                "reference steps/s": 1 / middle["reference"]["step_seconds"],
                "raydc steps/s": 1 / middle["raydc"]["step_seconds"],
                "steps ratio": middle["reference"]["step_seconds"] / middle["raydc"]["step_seconds"],
                "test ratio": middle["reference"]["test_seconds"] / middle["raydc"]["test_seconds"],
                "students/hour ratio": hours["raydc"] / hours["reference"],
                "of bare step": last["bare_step_seconds"] / middle["raydc"]["step_seconds"]
                if "bare_step_seconds" in last
                else None,
            }
        )
    data = "cifar10" if arguments.data else "digits"
    only = "" if arguments.ipc == ALL_IPC else "-ipc" + "-".join(map(str, arguments.ipc))
    name = f"students-{data}-{arguments.device}-{arguments.precision}{only}"
    publish(name, rows, arguments.device, arch=arguments.arch, rounds=arguments.rounds)


def accuracies(arguments: argparse.Namespace) -> None:
    """Paired test accuracies of complete trainings on both sides."""
    ipc, steps, seeds = arguments.ipc[0], arguments.steps, range(arguments.accuracy)
    if arguments.device == "cuda":
        ours = measure_one("raydc", arguments, ipc, steps, 0)["accuracies"]
    else:
        ours = [measure_one("raydc", arguments, ipc, steps, seed)["test_acc"] for seed in seeds]
    theirs = [measure_one("reference", arguments, ipc, steps, seed)["test_acc"] for seed in seeds]
    pairs = list(zip(ours, theirs, strict=True))
    for seed, (a, b) in enumerate(pairs):
        print(f"seed {seed}: raydc {a:.4f}, reference {b:.4f}", flush=True)
    differences = [a - b for a, b in pairs]
    from scipy import stats

    mean, spread = statistics.mean(differences), statistics.stdev(differences)
    half = float(stats.t.ppf(0.975, len(pairs) - 1)) * spread / len(pairs) ** 0.5
    data = "cifar10" if arguments.data else "digits"
    row = {
        "ipc": arguments.ipc[0],
        "seeds": len(pairs),
        "raydc": statistics.mean(a for a, _ in pairs),
        "reference": statistics.mean(b for _, b in pairs),
        "difference": mean,
        "low": mean - half,
        "high": mean + half,
    }
    name = f"accuracy-{data}-{arguments.device}-{arguments.precision}-ipc{ipc}"
    publish(name, [row], arguments.device, arch=arguments.arch, steps=arguments.steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", help="folder of CIFAR-10 as Parquet; without it, digits")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--precision", default="fp32", choices=["fp32", "tf32", "bf16"])
    parser.add_argument("--arch", help="default: convnet-d3-w128 on CIFAR-10, convnet-d2-w16 on digits")
    parser.add_argument("--ipc", type=int, nargs="+", default=ALL_IPC)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--accuracy", type=int, default=0, help="compare accuracies over this number of seeds"
    )
    parser.add_argument("--steps", type=int, default=300, help="training steps with --accuracy")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmarks"), help="store and compiled code")
    parser.add_argument("--side", choices=["raydc", "reference"], help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.arch = arguments.arch or ("convnet-d3-w128" if arguments.data else "convnet-d2-w16")
    if arguments.side:
        side(arguments)
    elif arguments.accuracy:
        accuracies(arguments)
    else:
        compare(arguments)


if __name__ == "__main__":
    main()
