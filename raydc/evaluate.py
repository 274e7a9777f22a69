"""One evaluation from end to end: the main path of raydc.

    compressed set + labels -> student -> trained by the recipe -> accuracy

Needs torch, torchvision, NumPy and pyarrow only. As a command it runs evaluations that
`raydc plan STUDY --export FILE` wrote, on a machine that has nothing else:

    python -m raydc.evaluate FILE --data DIR --out DIR
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from raydc.data.dataset import open_dataset
from raydc.errors import ArtifactError, EvaluationError, InputError, RaydcError
from raydc.labels.kinds import LabelInputs, LabelOutputs
from raydc.networks.zoo import initialised
from raydc.result import FAILED, FINISHED, Measured, Row, make_row
from raydc.seeding import seed_of
from raydc.spec import catalog
from raydc.spec.evaluation import DatasetSpec, Evaluation
from raydc.spec.facts import bind
from raydc.spec.plan import Plan, Planned, make_plan
from raydc.store import open_store
from raydc.training.engine import use_cache
from raydc.training.fit import fit
from raydc.training.inputs import Inputs, TensorInputs
from raydc.training.memory import keep_pages
from raydc.training.metrics import Score, measure
from raydc.workbench import Workbench


def evaluate(planned: Planned, bench: Workbench) -> Measured:
    """Train the student of `planned` and test it once, after its last step.

    What it waits for (compressed set, logits) is taken from the bench's store. Raises
    `EvaluationError` if the student cannot be trained, such as when its loss is not finite.
    """
    evaluation = planned.evaluation
    recipe = evaluation.recipe
    dataset = bench.dataset
    began = time.perf_counter()
    compressed, made = bench.compressed_set(planned.compressed_set)
    inputs = TensorInputs(bench.set_inputs(planned.compressed_set))
    labels, waited, labels_seconds, teacher_test_acc = _labels(planned, bench)
    chassis = bench.chassis(evaluation.arch)
    engine = chassis.engine(recipe, len(inputs))
    forward = chassis.forward(engine)
    chassis.warm(engine, recipe, len(inputs))
    chassis.load(
        initialised(
            evaluation.arch,
            dataset.channels,
            dataset.classes,
            dataset.resolution,
            "student",
            evaluation.seed,
        ).state_dict()
    )
    network = chassis.network
    classes = torch.from_numpy(compressed.labels).to(bench.device)
    test_inputs, test_labels = bench.test
    best: list[float] = []
    test_seconds = 0.0

    def score(inputs: Inputs, labels: Tensor) -> Score:
        return measure(network, inputs, labels, dataset.classes, recipe.precision, forward)

    def on_epoch(epoch: int, network: nn.Module, optimizer: Optimizer) -> None:
        nonlocal test_seconds
        del optimizer
        if recipe.test_every and epoch % recipe.test_every == 0:
            start = time.perf_counter()
            best.append(score(test_inputs, test_labels).accuracy)
            test_seconds += time.perf_counter() - start

    setup_seconds = time.perf_counter() - began - waited
    training = fit(
        network,
        inputs,
        labels.source.to(bench.device),
        recipe,
        key=seed_of("student views", evaluation.view_seed),
        device=bench.device,
        on_epoch=on_epoch if recipe.test_every else None,
        forward=forward,
        pool=recipe.distinct_steps(len(inputs), evaluation.keep_views),
    )
    start = time.perf_counter()
    val_acc = None
    if bench.val is not None:
        val_acc = score(*bench.val).accuracy
    test = score(test_inputs, test_labels)
    train = score(inputs, classes)
    test_seconds += time.perf_counter() - start
    return Measured(
        test_acc=test.accuracy,
        best_test_acc=max([*best, test.accuracy]) if recipe.test_every else None,
        val_acc=val_acc,
        test_loss=test.loss,
        train_acc=train.accuracy,
        test_acc_by_class=test.accuracy_by_class,
        teacher_test_acc=teacher_test_acc,
        images_bytes=compressed.images_bytes,
        labels_bytes=labels.labels_bytes,
        steps=training.steps,
        train_seconds=training.train_seconds,
        setup_seconds=setup_seconds,
        wait_seconds=waited,
        test_seconds=test_seconds,
        labels_seconds=labels_seconds,
        images_seconds=made.meta["seconds"],
        device=device_name(bench.device),
        engine=engine,
    )


def _labels(planned: Planned, bench: Workbench) -> tuple[LabelOutputs, float, float, float | None]:
    """(targets, seconds waited for them, seconds they took to make, the teachers' test accuracy)."""
    evaluation = planned.evaluation
    compressed, _ = bench.compressed_set(planned.compressed_set)
    kind = catalog.LABELS[str(evaluation.point["labels.kind"])]
    given = evaluation.block("labels")
    names = {key.name.removeprefix("labels.") for key in kind.keys}
    keys = {n: v for n, v in given.items() if n in names}
    for name in ("teacher", "teacher_epoch", "ensemble"):
        keys.pop(name, None)
    inputs = LabelInputs(torch.from_numpy(compressed.labels), bench.dataset.classes)
    waited = made = 0.0
    accuracy = None
    if planned.passes:
        start = time.perf_counter()
        if kind.views:
            steps = evaluation.recipe.distinct_steps(len(inputs.labels), evaluation.keep_views)
            views, artifacts = bench.view_logits(planned.passes, len(inputs.labels), steps)
            inputs = replace(inputs, views=views)
        else:
            logits, artifacts = bench.logits(planned.passes)
            inputs = replace(inputs, logits=logits)
        waited = time.perf_counter() - start
        made = sum(float(artifact.meta["seconds"]) for artifact in artifacts)
        known = [a.meta["teacher_test_acc"] for a in artifacts if a.meta["teacher_test_acc"] is not None]
        accuracy = sum(known) / len(known) if known else None
    return kind.load()(inputs, **keys), waited, made, accuracy


def device_name(device: torch.device) -> str:
    """`cpu`, or the name of the GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def attempt(planned: Planned, bench: Workbench, *, study: str, attempts: int = 1) -> Row:
    """`evaluate` as a row; an evaluation that cannot finish is a row with its error."""
    started = time.time()
    measured, error = None, None
    try:
        measured = evaluate(planned, bench)
    except (EvaluationError, ArtifactError, torch.OutOfMemoryError) as problem:
        error = f"{type(problem).__name__}: {problem}"
    return make_row(
        planned,
        study=study,
        dataset_id=bench.dataset.id,
        status=FINISHED if measured is not None else FAILED,
        started_at=started,
        finished_at=time.time(),
        attempts=attempts,
        measured=measured,
        error=error,
    )


def make_everything(plan: Plan, bench: Workbench) -> None:
    """Make what the evaluations of `plan` wait for, in this process."""
    for trajectory in plan.trajectories.values():
        bench.make_trajectory(trajectory)
    for job in plan.sets.values():
        bench.make_set(job)
    for label_pass in plan.passes.values():
        bench.ensure(label_pass)


# --- the command ------------------------------------------------------------------------------


def export_line(planned: Planned, study: str, dataset_id: str | None) -> str:
    """One evaluation as a JSON line; its id is null where the data were not at hand."""
    return json.dumps(
        {
            "evaluation_id": planned.id if dataset_id is not None else None,
            "study": study,
            "dataset_id": dataset_id,
            "evaluation": json.loads(planned.evaluation.to_json()),
        },
        allow_nan=False,
    )


def _read_export(file: Path) -> Iterator[tuple[str | None, str, Evaluation]]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: it cannot be read: {error}") from None
    for number, line in enumerate(text.splitlines(), 1):
        try:
            content = json.loads(line)
            evaluation = Evaluation.from_json(json.dumps(content["evaluation"]))
            yield content["evaluation_id"], str(content["study"]), evaluation
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{file}: line {number} is not an evaluation that `raydc plan --export` wrote ({error!r})"
            ) from None


def _located(spec: DatasetSpec, data: str | None) -> DatasetSpec:
    """The dataset with its files at `data`."""
    if data is None:
        return spec
    if spec.source == "named" and any(Path(data).rglob("*.parquet")):
        return replace(spec, source="parquet", location=data)
    return replace(spec, location=data)


def run_file(file: Path, data: str | None, out: Path, store_uri: str | None, device: str) -> int:
    """Run the evaluations of an exported file; returns how many failed.

    Results are appended to OUT/results.jsonl; a second start goes on where the first ended.
    """
    exported = list(_read_export(file))
    if not exported:
        raise InputError(f"{file}: it holds no evaluation")
    specs = {evaluation.dataset for _, _, evaluation in exported}
    if len(specs) > 1:
        raise InputError(f"{file}: its evaluations have {len(specs)} datasets, but must have one")
    store = open_store(store_uri or str(out / "store"))
    dataset = open_dataset(_located(specs.pop(), data), store)
    evaluations = bind((evaluation for _, _, evaluation in exported), dataset.facts, str(file))
    plan = make_plan(evaluations, dataset.id)
    expected = {name for name, _, _ in exported if name is not None}
    if expected and expected != {planned.id for planned in plan.evaluations}:
        raise InputError(
            f"{file}: the data are not those that the plan was made with; give the same files with --data"
        )
    results = out / "results.jsonl"
    finished = {row["evaluation_id"] for row in _results(results) if row["status"] == FINISHED}
    left = plan.without(finished)
    print(f"{len(plan.evaluations)} evaluations, {len(finished)} finished before", flush=True)
    if device == "cpu":
        keep_pages()
        use_cache(out / "compiled")
    bench = Workbench(dataset, store, torch.device(device))
    make_everything(left, bench)
    failed = 0
    with results.open("a", encoding="utf-8") as ledger:
        for number, planned in enumerate(left.evaluations, 1):
            row = attempt(planned, bench, study=exported[0][1])
            failed += row["status"] == FAILED
            ledger.write(json.dumps(row, allow_nan=False) + "\n")
            ledger.flush()
            os.fsync(ledger.fileno())
            said = row["error"] or f"test_acc {row['test_acc']:.4f}"
            print(f"{number}/{len(left.evaluations)} {planned.id} {said}", flush=True)
    return failed


def _results(path: Path) -> Iterable[Row]:
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            continue  # the last line of a run that was killed while it wrote


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit code (0, 2 for bad input, 3 if some evaluations failed)."""
    parser = argparse.ArgumentParser(prog="python -m raydc.evaluate", description=__doc__)
    parser.add_argument("file", type=Path, help="JSON lines of `raydc plan STUDY --export FILE`")
    parser.add_argument("--data", help="folder of the dataset, instead of the one in the study")
    parser.add_argument("--out", type=Path, required=True, help="folder for results.jsonl")
    parser.add_argument("--store", help="folder of the store (default: OUT/store)")
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", help="torch device"
    )
    chosen = parser.parse_args(arguments)
    chosen.out.mkdir(parents=True, exist_ok=True)
    try:
        failed = run_file(chosen.file, chosen.data, chosen.out, chosen.store, chosen.device)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except RaydcError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 3 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
