"""Who may import whom: modules have ranks, imports go down, and the core is free of the services."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import raydc
from raydc.exported import export_line
from raydc.spec.plan import Plan
from raydc.spec.study import Study

ROOT = Path(raydc.__file__).parent
CORE_PACKAGES = {"torch", "torchvision", "timm", "numpy", "pyarrow", "PIL", "safetensors", "sklearn"}
RANKS = {
    # module or package: (rank, third-party packages)
    "errors": (0, set()),
    "plain_json": (0, set()),
    "registry": (0, set()),
    "seeding": (0, set()),
    "shipped": (0, set()),
    "disk": (0, set()),
    "plugins": (0, set()),
    "spec": (1, set()),
    "spec.yaml_file": (1, {"yaml"}),
    "spec.study_file": (1, {"pydantic"}),
    "result": (1, set()),
    "store": (2, CORE_PACKAGES),
    "remote_store": (2, CORE_PACKAGES),
    "data": (2, CORE_PACKAGES),
    "data.hub": (2, {"huggingface_hub"}),
    "data.hdf5_file": (2, {"h5py", "numpy"}),
    "networks": (2, CORE_PACKAGES),
    "augmentation": (2, CORE_PACKAGES),
    "training": (2, CORE_PACKAGES),
    "methods": (3, CORE_PACKAGES),
    "teachers": (3, CORE_PACKAGES),
    "labels": (3, CORE_PACKAGES),
    "compress": (4, CORE_PACKAGES),
    "recent": (0, set()),
    "sets": (4, CORE_PACKAGES),
    "relabelling": (4, CORE_PACKAGES),
    "student_engines": (4, CORE_PACKAGES),
    "workbench": (4, CORE_PACKAGES),
    "evaluate": (4, CORE_PACKAGES),
    "label_service": (4, set()),
    "packs": (4, CORE_PACKAGES),
    "exported": (4, CORE_PACKAGES),
    "estimate": (4, CORE_PACKAGES),
    "tracking": (5, set()),
    "tracking.reach": (5, {"requests"}),
    "analysis": (5, {"numpy", "scipy", "pandas", "pyarrow"}),
    "orchestration": (6, {"ray", "torch", "optuna"}),
    "orchestration.jobs": (6, {"ray", "aiohttp"}),
    "orchestration.gp_sampler": (6, {"numpy", "optuna"}),
    "tracking.mlflow_client": (6, {"mlflow", "requests", "sqlalchemy"}),
    "tracking.mlflow_record": (6, {"mlflow"}),
    "tracking.mlflow_transaction": (6, {"mlflow", "sqlalchemy"}),
    "tracking.mlflow_writer": (6, {"mlflow"}),
    "tracking.mlflow_tracker": (6, {"mlflow"}),
    "report": (7, {"matplotlib", "jinja2", "markupsafe", "numpy", "PIL"}),
    "cli": (7, {"typer"}),
    "commands": (7, {"typer", "rich"}),
    "cluster_doctor": (7, set()),
    "console": (7, {"rich"}),
    "doctor": (7, CORE_PACKAGES),
    "folder": (7, {"pandas", "pyarrow"}),
    "label_export": (7, {"numpy", "torch", "PIL"}),
    "launch": (7, set()),
    "pace": (7, set()),
    "planning": (7, {"torch"}),
    "ready": (7, set()),
    "recording": (7, set()),
    "rows": (7, set()),
    "searching": (7, set()),
    "set_entropy": (7, {"torch"}),
    "reproduce": (7, {"numpy"}),
    "reference": (7, set()),
    "sync": (7, set()),
    "study_page": (7, set()),
    "watch": (7, set()),
    "study": (7, {"pandas", "matplotlib", "rich"}),
    "__init__": (-1, set()),
    "__main__": (7, set()),
}
STRANGERS = ("methods", "teachers", "labels")
"""Of one rank, but scores and logits travel between them as arrays."""


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def rank_of(module: str) -> tuple[int, set[str]]:
    parts = module.split(".")
    for size in range(len(parts), 0, -1):
        if (found := RANKS.get(".".join(parts[:size]))) is not None:
            return found
    raise AssertionError(f"raydc.{module} has no rank; put it into the table")


def imports_of(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            assert node.module is not None
            if node.module == "raydc" or node.module.startswith("raydc."):
                found += [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                found.append(node.module)
    return found


MODULES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_down_the_ranks(path: Path) -> None:
    module = name_of(path)
    rank, allowed = rank_of(module)
    for imported in imports_of(path):
        top = imported.partition(".")[0]
        if top == "raydc":
            target = imported.removeprefix("raydc").lstrip(".")
            if not target or target == "__version__":
                continue
            other, _ = rank_of(target)
            assert other <= rank, f"{module} (rank {rank}) imports {target} (rank {other})"
            mine, theirs = module.partition(".")[0], target.partition(".")[0]
            strangers = mine in STRANGERS and theirs in STRANGERS and mine != theirs
            assert not strangers, f"{module} imports {target}"
        elif top not in sys.stdlib_module_names:
            assert top in allowed, f"{module} imports {top}"


def test_importing_raydc_loads_no_library() -> None:
    script = (
        "import sys, raydc; print([m for m in ('ray', 'mlflow', 'torch', 'pydantic') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


BLOCKED = """
import sys

SERVICES = "ray", "mlflow", "optuna", "pydantic", "typer", "rich", "pandas", "yaml"

class Without:
    '''A finder as where the services are not installed.'''

    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, *more):
        return None if name.partition(".")[0] in SERVICES else self.finder.find_spec(name, *more)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = map(Without, sys.meta_path)
"""


def without_services(script: str, *arguments: str, cwd: Path) -> str:
    """What a script prints in a Python that has none of the services."""
    ran = subprocess.run(
        [sys.executable, "-c", BLOCKED + script, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_the_core_runs_without_the_services(
    small: Callable[..., Study], planned: Callable[[Study], Plan], tmp_path: Path
) -> None:
    settings = (
        "base.labels.teacher_epoch=1",
        "grid={labels.kind: [hard, soft], labels.temperature: [1, 4]}",
        "teacher.epochs=1",
        "base.images.ipc=1",
        "base.train.steps=3",
    )
    plan = planned(small(*settings))
    lines = [export_line(p, "small", "digits") + "\n" for p in plan.evaluations]
    (tmp_path / "study.jsonl").write_text("".join(lines))
    command = "import runpy\nrunpy.run_module('raydc.evaluate', run_name='__main__', alter_sys=True)\n"
    arguments = ("study.jsonl", "--out", "out", "--device", "cpu")
    said = without_services(command, *arguments, cwd=tmp_path).splitlines()
    assert said[0] == "3 evaluations, 0 finished before"
    # The hard labels need no teacher; the soft ones ask it once, naively once a temperature.
    assert said[-1] == (
        "labels: 10 images forwarded now, 10 in the study; "
        "labelling anew for every evaluation would forward 20"
    )
    rows = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert {row["evaluation_id"] for row in rows} == {p.id for p in plan.evaluations}
    assert {(row["status"], row["steps"]) for row in rows} == {("finished", 3)}
    assert sorted(row["labels.kind"] for row in rows) == ["hard", "soft", "soft"]
    assert all(0 < row["test_acc"] < 1 for row in rows)


def test_what_measures_the_core_is_imported_without_the_services(tmp_path: Path) -> None:
    script = """
from benchmarks import label_service, label_store, students
assert not {name.partition(".")[0] for name in sys.modules} & {*SERVICES}
try:
    import benchmarks.orchestration
except ModuleNotFoundError as error:
    print(error.name)
"""
    # Those of the services need them, so they were blocked.
    assert without_services(script, cwd=tmp_path).strip() in ("ray", "pydantic", "mlflow", "yaml")
