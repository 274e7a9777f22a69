"""Who may import whom: modules have ranks, imports go down, and the core is free of the services."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import raydc
from raydc.spec.plan import Plan
from raydc.spec.study import StudySpec
from raydc.worker.exported import export_line

ROOT = Path(raydc.__file__).parent
FLOORS = (
    {"errors"},
    {"files"},
    {"spec", "store"},
    {"data", "networks", "augmentation"},
    {"training", "methods"},
    {"teachers", "labels"},
    {"worker"},
    {"analysis", "tracking"},
    {"search", "report"},
    {"orchestration"},
    {"study"},
    {"commands"},
    {"testing"},
)
"""Packages from the ground up: each may import lower floors only; those of one floor are strangers."""
FACES = {"__init__", "__main__", "evaluate"}
"""Modules at the top that only hand on; nothing imports them."""
MOST_ENTRIES = 24
"""At the top of the package, `py.typed` and folders of data among them."""

CORE = {"torch", "torchvision", "timm", "numpy", "pyarrow", "PIL", "safetensors", "sklearn"}
LIBRARIES: dict[str, set[str]] = {
    # package or module: what it may import from other projects; the longest name counts
    "errors": set(),
    "files": set(),
    "spec": set(),
    "spec.yaml_file": {"yaml"},
    "spec.study_file": {"pydantic"},
    "store": {"pyarrow"},
    "store.saved": {"safetensors", "torch"},
    "data": CORE,
    "data.hub": {"huggingface_hub"},
    "data.hdf5_file": {"h5py", "numpy"},
    "networks": CORE,
    "augmentation": CORE,
    "training": CORE,
    "methods": CORE,
    "teachers": CORE,
    "labels": CORE,
    "worker": CORE,
    "analysis": {"numpy", "scipy", "pandas", "pyarrow"},
    "tracking": set(),
    "tracking.reach": {"requests"},
    "tracking.study_folder": {"pandas", "pyarrow"},
    "tracking.mlflow_client": {"mlflow", "requests", "sqlalchemy"},
    "tracking.mlflow_record": {"mlflow"},
    "tracking.mlflow_transaction": {"mlflow", "sqlalchemy"},
    "tracking.mlflow_writer": {"mlflow"},
    "tracking.mlflow_tracker": {"mlflow"},
    "search": {"optuna"},
    "search.gp_sampler": {"numpy", "optuna"},
    "report": {"matplotlib", "jinja2", "markupsafe", "numpy", "PIL"},
    "orchestration": {"ray", "torch"},
    "orchestration.jobs": {"ray", "aiohttp"},
    "study": set(),
    "study.api": {"pandas", "matplotlib", "rich"},
    "study.console": {"rich"},
    "study.estimate": {"torch"},
    "study.label_export": {"numpy", "torch", "PIL"},
    "study.planning": {"torch"},
    "study.reporting": {"pandas", "matplotlib"},
    "study.set_entropy": {"torch"},
    "commands": {"typer", "rich"},
    "testing": {*CORE, "pytest"},
    "commands.doctor": CORE,
    "evaluate": set(),
    "__init__": set(),
    "__main__": set(),
}


def name_of(path: Path, root: Path = ROOT) -> str:
    """`spec.plan` for raydc/spec/plan.py, `spec` for raydc/spec/__init__.py."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def imports_of(path: Path) -> list[str]:
    """Modules, or names in modules, that a file imports, wherever the statement stands."""
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


def graph_of(root: Path) -> dict[str, set[str]]:
    """Modules of a package, each with those of the same package that it imports."""
    modules = {name_of(path, root): path for path in sorted(root.rglob("*.py"))}
    graph: dict[str, set[str]] = {}
    for module, path in modules.items():
        graph[module] = set()
        for imported in imports_of(path):
            if imported.partition(".")[0] == "raydc":
                parts = imported.split(".")[1:]
                names = (".".join(parts[:size]) for size in range(len(parts), 0, -1))
                graph[module] |= {name for name in [next((n for n in names if n in modules), None)] if name}
    return graph


def upward(graph: dict[str, set[str]]) -> list[str]:
    """Imports that do not go down the floors, from package to package."""
    floor = {package: number for number, packages in enumerate(FLOORS) for package in packages}
    wrong = []
    for module, imported in graph.items():
        mine = module.partition(".")[0]
        for target in imported:
            theirs = target.partition(".")[0]
            if mine not in FACES and theirs != mine and floor[theirs] >= floor[mine]:
                wrong.append(f"{module} imports {target}")
    return wrong


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle, the first one again at the end; empty if there is none."""
    done: set[str] = set()

    def search(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return []
        for target in sorted(graph[module]):
            if found := search(target, [*path, module]):
                return found
        done.add(module)
        return []

    return next((found for module in sorted(graph) if (found := search(module, []))), [])


def test_imports_go_down_the_floors() -> None:
    graph = graph_of(ROOT)
    assert len(graph) > 200
    assert upward(graph) == []


def test_modules_of_mlflow_are_imported_by_the_loader_of_trackers_alone() -> None:
    own = "tracking.mlflow_"
    users = {
        module
        for module, imported in graph_of(ROOT).items()
        if not module.startswith(own) and any(target.startswith(own) for target in imported)
    }
    assert users == {"tracking.trackers"}


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circle(graph_of(ROOT)) == []


@pytest.mark.parametrize(
    ("module", "statement", "wrong", "circular"),
    [
        (
            "spec/plan.py",
            "from raydc.worker.packs import attempt_all",
            ["spec.plan imports worker.packs"],
            True,
        ),
        (
            "data/parquet.py",
            "from raydc.networks.zoo import build",
            ["data.parquet imports networks.zoo"],
            False,
        ),
        (
            "store/artifact.py",
            "if TYPE_CHECKING:\n    from raydc.store.remote import RemoteStore",
            [],
            True,
        ),
        (
            "teachers/scores.py",
            "def later() -> None:\n    from raydc.labels import kinds",
            ["teachers.scores imports labels.kinds"],
            False,
        ),
    ],
)
def test_an_import_that_goes_up_or_round_is_found(
    module: str, statement: str, wrong: list[str], circular: bool, tmp_path: Path
) -> None:
    copy = tmp_path / "raydc"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns("__pycache__"))
    with (copy / module).open("a") as file:
        file.write(f"\n\n{statement}\n")
    graph = graph_of(copy)
    assert upward(graph) == wrong
    assert bool(circle(graph)) == circular


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=name_of)
def test_what_is_imported_of_other_projects(path: Path) -> None:
    parts = name_of(path).split(".")
    names = (".".join(parts[:size]) for size in range(len(parts), 0, -1))
    allowed = next(LIBRARIES[name] for name in names if name in LIBRARIES)
    tops = {imported.partition(".")[0] for imported in imports_of(path)}
    assert tops - {"raydc"} - sys.stdlib_module_names <= allowed


def test_the_top_of_the_package_is_small() -> None:
    entries = [entry.name for entry in ROOT.iterdir() if entry.name != "__pycache__"]
    assert len(entries) <= MOST_ENTRIES, sorted(entries)


@pytest.mark.command
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


@pytest.mark.command
def test_the_core_runs_without_the_services(
    small: Callable[..., StudySpec], planned: Callable[[StudySpec], Plan], tmp_path: Path
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
        "labelling again for every evaluation would forward 20"
    )
    rows = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert {row["evaluation_id"] for row in rows} == {p.id for p in plan.evaluations}
    assert {(row["status"], row["steps"]) for row in rows} == {("finished", 3)}
    assert sorted(row["labels.kind"] for row in rows) == ["hard", "soft", "soft"]
    assert all(0 < row["test_acc"] < 1 for row in rows)


@pytest.mark.command
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
