"""Exported studies: evaluations as JSON lines, run by `python -m raydc.evaluate` with torch alone."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch

from raydc.data.dataset import open_dataset
from raydc.errors import ArtifactError, FolderError, InputError, StoreError
from raydc.files.atomic import cut_torn_line
from raydc.files.full_disk import writing_folder
from raydc.files.plain_json import parse_json
from raydc.spec import plugins
from raydc.spec.evaluation import DatasetSpec, Evaluation
from raydc.spec.facts import bind
from raydc.spec.plan import Plan, Planned, forwards_sentence, make_plan
from raydc.spec.received import received
from raydc.spec.result import FAILED, FINISHED, Row, not_started
from raydc.store.opening import open_store
from raydc.training.compiling import use_cache
from raydc.training.memory import keep_pages
from raydc.worker.making import make_everything
from raydc.worker.packs import attempt_all
from raydc.worker.workbench import Workbench

RESULTS = "results.jsonl"
DESCRIPTION = "Run the evaluations that `raydc plan STUDY --export FILE` wrote; a second start continues."


def export_line(planned: Planned, study: str, dataset_id: str | None) -> str:
    """One evaluation as a JSON line; its id is null if the data were not available."""
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
            content = parse_json(line)
            name, evaluation = content["evaluation_id"], received(content["evaluation"])
            if name is not None and not isinstance(name, str):
                raise TypeError(f"evaluation_id is {name!r}")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{file}: line {number} is not an evaluation that `raydc plan --export` wrote ({error!r})"
            ) from None
        yield name, str(content["study"]), evaluation


def _located(spec: DatasetSpec, data: str | None) -> DatasetSpec:
    """The dataset with its files at `data`."""
    if data is None:
        return spec
    if spec.source == "named" and spec.name == "digits":
        raise InputError(f"--data is {data!r}, but the study's dataset is digits, which needs no files")
    if spec.source in ("named", "hub") and any(Path(data).rglob("*.parquet")):
        return replace(spec, source="parquet", location=data)
    return replace(spec, location=data)


def run_file(file: Path, data: str | None, out: Path, store_uri: str | None, device: str) -> int:
    """Run the evaluations of an exported file; returns the number that failed.

    Results are appended to OUT/results.jsonl; a second start continues where the first ended.
    """
    exported = list(_read_export(file))
    if not exported:
        raise InputError(f"{file}: it contains no evaluations")
    specs = {evaluation.dataset for _, _, evaluation in exported}
    if len(specs) > 1:
        raise InputError(f"{file}: its evaluations use {len(specs)} datasets, but must use one")
    store = open_store(store_uri or str(out / "store"))
    dataset = open_dataset(_located(specs.pop(), data), store)
    evaluations = bind((evaluation for _, _, evaluation in exported), dataset.facts, str(file))
    plan = make_plan(evaluations, dataset.id)
    expected = {name for name, _, _ in exported if name is not None}
    if expected and expected != {planned.id for planned in plan.evaluations}:
        raise InputError(
            f"{file}: the data are not those that the plan was made with; give the same files with --data"
        )
    results = out / RESULTS
    cut_torn_line(results)
    finished = {row["evaluation_id"] for row in _results(results) if row["status"] == FINISHED}
    left = plan.without(finished)
    print(f"{len(plan.evaluations)} evaluations, {len(finished)} finished before", flush=True)
    if device == "cpu":
        keep_pages()
    use_cache(out / "compiled")
    bench = Workbench(dataset, store, torch.device(device))
    broken = make_everything(left, bench)
    failed = 0
    with writing_folder(out), results.open("a", encoding="utf-8") as ledger:
        done = 0
        for rows in _rows(left, broken, bench, exported[0][1]):
            ledger.writelines(json.dumps(row, allow_nan=False) + "\n" for row in rows)
            ledger.flush()
            os.fsync(ledger.fileno())
            for row in rows:
                done += 1
                failed += row["status"] == FAILED
                outcome = row["error"] or f"test_acc {row['test_acc']:.4f}"
                print(f"{done}/{len(left.evaluations)} {row['evaluation_id']} {outcome}", flush=True)
    if naive := plan.naive_forwards(dataset.classes):
        print(
            forwards_sentence(bench.relabeller.images_forwarded, plan.forwards(dataset.classes), naive),
            flush=True,
        )
    return failed


def _rows(plan: Plan, broken: Mapping[str, str], bench: Workbench, study: str) -> Iterator[list[Row]]:
    """Rows of all evaluations; those whose prerequisites cannot be made fail with the reason."""
    able, lost = not_started(plan, broken, study=study, dataset_id=bench.dataset.id)
    if lost:
        yield lost
    yield from attempt_all([(planned, 1) for planned in able], bench, study=study)


def _results(path: Path) -> Iterable[Row]:
    if not path.exists():
        return
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            row = parse_json(line)
            yield {**row, "evaluation_id": row["evaluation_id"], "status": row["status"]}
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{path}: line {number} is damaged; remove the line") from None


def _check_writable(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / RESULTS).open("ab").close()
    except OSError as error:
        raise InputError(f"--out is {str(out)!r}, which cannot be written ({error})") from None


def _check_device(name: str) -> None:
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
        if device.index is not None and device.type == "cuda":
            # Captured CUDA graphs run on the current device.
            torch.cuda.set_device(device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n")[0][:120]
        raise InputError(
            f"--device is {name!r}, which is not available ({reason}); use cpu or cuda"
        ) from None


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit code (0, 2 for bad input, 3 if some evaluations failed)."""
    parser = argparse.ArgumentParser(prog="python -m raydc.evaluate", description=DESCRIPTION)
    parser.add_argument("file", type=Path, help="JSON lines of `raydc plan STUDY --export FILE`")
    parser.add_argument("--data", help="folder of the dataset, instead of the one in the study")
    parser.add_argument("--out", type=Path, required=True, help="folder for results.jsonl")
    parser.add_argument("--store", help="folder of the store (default: OUT/store)")
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", help="torch device"
    )
    chosen = parser.parse_args(arguments)
    try:
        _check_writable(chosen.out)
        plugins.load()
        _check_device(chosen.device)
        failed = run_file(chosen.file, chosen.data, chosen.out, chosen.store, chosen.device)
    except (InputError, ArtifactError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (StoreError, FolderError) as error:
        print(f"stopped: {error}; start again to continue from here", file=sys.stderr)
        return 3
    return 3 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
