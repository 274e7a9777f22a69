"""The files around the code: CI, forms, pre-commit, the documentation, the example for contributors."""

from __future__ import annotations

import re
import runpy
import tomllib
import zipfile
from collections.abc import Callable, Iterator, Mapping
from importlib.util import module_from_spec, spec_from_file_location
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hatchling.builders.wheel import WheelBuilder

import raydc
from raydc.spec import plugins
from raydc.spec.plan import Plan
from raydc.spec.study import StudySpec
from raydc.worker.evaluate import attempt
from raydc.worker.workbench import Workbench

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted(
    set((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")) - {ROOT / ".github/ISSUE_TEMPLATE/config.yml"}
)
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE))
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("[a-z]*/README.md")])


def parsed(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


@pytest.fixture(scope="module")
def site() -> Any:
    """The hook of mkdocs as a module."""
    spec = spec_from_file_location("site_pages", ROOT / ".ci" / "site_pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- CI -------------------------------------------------------------------------------------------


def steps(workflow: Path) -> Iterator[Mapping[str, Any]]:
    for job in parsed(workflow)["jobs"].values():
        yield from job["steps"]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_the_workflow_calls_make_targets_that_exist(workflow: Path) -> None:
    called = [step["run"].split()[1] for step in steps(workflow) if step.get("run", "").startswith("make ")]
    assert {"install", "lint", "quick", "test", "docs"} <= set(called)
    assert set(called) - TARGETS == set()


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_to_a_major_version(workflow: Path) -> None:
    used = [step["uses"] for step in steps(workflow) if "uses" in step]
    assert used
    assert [name for name in used if not re.fullmatch(r"[\w-]+/[\w-]+@v\d+", name)] == []


def test_every_python_that_is_allowed_is_tested() -> None:
    jobs = parsed(ROOT / ".github/workflows/ci.yml")["jobs"]
    versions = jobs["newest"]["strategy"]["matrix"]["python"]
    lowest = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert lowest == f">={versions[0]}"
    assert all(isinstance(version, str) for version in versions)  # 3.10 as a number would be 3.1


def test_every_lower_bound_becomes_a_constraint() -> None:
    oldest = runpy.run_path(str(ROOT / ".ci" / "oldest.py"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    assert oldest["requirements"](project) == lines
    found = oldest["constraints"](lines)
    names = {line.partition("==")[0] for line in found}
    bounded = {re.match(r"[\w-]+", line)[0].lower() for line in lines if ">=" in line}  # type: ignore[index]
    assert names == bounded
    assert "ray==2.52" in found
    assert "atheris==3.0; sys_platform == 'linux'" in found
    assert {line.partition(">")[0].partition("[")[0] for line in project["dependencies"]} <= names


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (["Foo_Bar[x, y]>=1.2,<3"], ["foo-bar==1.2"]),
        (["a<3,>= 1.0rc1"], ["a==1.0rc1"]),
        (["a", "b<2", "a>=1", "a>=1,<2"], ["a==1"]),
    ],
)
def test_how_requirements_are_read(lines: list[str], found: list[str]) -> None:
    assert runpy.run_path(str(ROOT / ".ci" / "oldest.py"))["constraints"](lines) == found


@pytest.mark.parametrize("lines", [["a>=1", "A>=2"], ["-e ."]])
def test_requirements_that_cannot_be_constraints(lines: list[str]) -> None:
    with pytest.raises(ValueError, match=r"two lower bounds|not a requirement"):
        runpy.run_path(str(ROOT / ".ci" / "oldest.py"))["constraints"](lines)


# --- forms and hooks --------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS, ids=lambda path: path.name)
def test_issue_forms(form: Path) -> None:
    content = parsed(form)
    assert {"name", "description", "body"} <= set(content)
    asked = [item for item in content["body"] if item["type"] != "markdown"]
    assert {item["type"] for item in asked} <= {"textarea", "input", "dropdown", "checkboxes"}
    assert len({item["id"] for item in asked}) == len(asked) > 1
    assert all(item["attributes"]["label"] for item in asked)
    assert any(item.get("validations", {}).get("required") for item in asked)


def test_pre_commit_runs_what_make_lint_runs() -> None:
    repos = parsed(ROOT / ".pre-commit-config.yaml")["repos"]
    hooks = [hook for repo in repos for hook in repo["hooks"]]
    (lint,) = re.findall(r"^lint:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    tools = re.findall(r"\$\(BIN\)/(ruff \w+|\w+)", lint)
    entries = [hook.get("entry", "") for hook in hooks]
    assert len(tools) == 3
    assert [tool for tool in tools if not any(e.startswith(f".venv/bin/{tool}") for e in entries)] == []
    assert all(re.fullmatch(r"v\d+\.\d+\.\d+", repo["rev"]) for repo in repos if repo["repo"] != "local")


# --- documentation ------------------------------------------------------------------------------------


def test_the_navigation_names_every_page_once(site: Any) -> None:
    def leaves(item: Any) -> Iterator[str]:
        if isinstance(item, str):
            yield item
        else:
            for child in item.values() if isinstance(item, dict) else item:
                yield from leaves(child)

    named = list(leaves(parsed(ROOT / "mkdocs.yml")["nav"]))
    assert len(named) == len(set(named))
    assert set(named) == {path.name for path in (ROOT / "docs").glob("*.md")} | set(site.OUTSIDE.values())


def headings(page: Path) -> set[str]:
    """Anchors of a page's headings."""
    lines = re.findall(
        r"^#+ (.+)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), re.MULTILINE
    )
    return {re.sub(r"[^\w\- ]", "", line.lower()).strip().replace(" ", "-") for line in lines}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path, site: Any) -> None:
    source = str(page.relative_to(ROOT))
    site.for_site(page.read_text(), source)
    for link in site.LINK.findall(page.read_text()):
        target, _, heading = link.partition("#")
        if heading and ":" not in target:
            led_to = page.parent / target if target else page
            assert heading in headings(led_to), f"{source}: {link}"


@pytest.mark.parametrize(
    ("markdown", "source", "turned"),
    [
        ("[a](docs/search.md#x)", "README.md", "[a](search.md#x)"),
        ("![a](docs/quickstart.png)", "README.md", "![a](quickstart.png)"),
        ("[a](../SECURITY.md)", "docs/search.md", "[a](security.md)"),
        ("[a](../docs/cluster.md)", "cluster/README.md", "[a](cluster.md)"),
        ("[a](cluster/README.md)", "README.md", "[a](launchers.md)"),
        ("[a](search_spaces)", "README.md", "[a](studies.md)"),
        ("[a](#x) [b](https://arxiv.org/abs/1)", "README.md", "[a](#x) [b](https://arxiv.org/abs/1)"),
        ("```\n[a](nowhere.md)\n```", "README.md", "```\n[a](nowhere.md)\n```"),
    ],
)
def test_links_in_the_site(markdown: str, source: str, turned: str, site: Any) -> None:
    assert site.for_site(markdown, source) == turned


@pytest.mark.parametrize("link", ["nowhere.md", "LICENSE"])
def test_a_link_that_the_site_cannot_follow_is_refused(link: str, site: Any) -> None:
    with pytest.raises(FileNotFoundError, match=link):
        site.for_site(f"[a]({link})", "README.md")


def test_the_page_of_studies_holds_each(site: Any) -> None:
    page = site.studies_page()
    for study in (ROOT / "search_spaces").glob("*.yaml"):
        assert f"\n## {study.stem}\n" in page


def test_files_that_the_pages_name_exist() -> None:
    for page in ("docs/architecture.md", "CONTRIBUTING.md", "SECURITY.md", "README.md"):
        named = re.findall(r"`((?:raydc|tests|benchmarks|cluster|\.ci)/[\w./]+)`", (ROOT / page).read_text())
        assert [name for name in named if "NAME" not in name and not (ROOT / name).exists()] == [], page
    (diagram,) = re.findall(
        r"## One evaluation\n\n```\n(.*?)```", (ROOT / "docs/architecture.md").read_text(), re.DOTALL
    )
    for name in re.findall(r"[a-z_]+/[a-z_]+\.py", diagram):
        assert (ROOT / "raydc" / name).is_file(), name


def test_the_table_of_packages_is_complete() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    named = set(re.findall(r"^\| .*`([a-z]+)/`.* \|", text, re.MULTILINE))
    assert named == {path.parent.name for path in (ROOT / "raydc").glob("*/__init__.py")}


def test_the_change_log_names_modules_that_exist() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert "\n## Unreleased\n" in text
    assert f"\n## {raydc.__version__} - 20" in text
    now = [line.split("|")[2] for line in text.splitlines() if line.startswith("    | `raydc.")]
    assert len(now) > 10
    for cell in now:
        package = ""
        for name in re.findall(r"`([\w.]+)`", cell):
            full = f"{package}{name}" if name.startswith(".") else name
            package = full.rpartition(".")[0]
            path = ROOT / full.replace(".", "/")
            assert path.with_suffix(".py").is_file(), full


# --- the package ----------------------------------------------------------------------------------------


def test_the_wheel_holds_types_and_studies(tmp_path: Path) -> None:
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path))
    assert Path(wheel).name == f"raydc-{raydc.__version__}-py3-none-any.whl"
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"raydc/py.typed", "raydc/search_spaces/quickstart.yaml", "raydc/commands/app.py"} <= names
    assert not [name for name in names if name.startswith("tests/")]


@pytest.mark.usefixtures("own_catalog")
def test_the_example_for_contributors_runs(
    tmp_path: Path,
    small: Callable[..., StudySpec],
    ready: Callable[[StudySpec], Plan],
    bench: Workbench,
) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    example = next(
        b for b in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL) if "METHODS" in b
    )
    assert len([line for line in example.splitlines() if line.strip()]) <= 10
    path = tmp_path / "my_method.py"
    path.write_text(example)
    plugins.use([path])
    plan = ready(small("base.images.method=dark-images", "base.train.steps=1"))
    (planned,) = plan.evaluations
    row = attempt(planned, bench, study="small")
    assert (row["status"], row["images.method"]) == ("finished", "dark-images")
    (name,) = plan.sets
    compressed, _ = bench.compressed_set(name)
    train = bench.dataset.train
    for label in range(bench.dataset.classes):
        brightness = np.sort(train.images[train.labels == label].mean(axis=(1, 2, 3)))
        chosen = compressed.images[compressed.labels == label].mean(axis=(1, 2, 3))
        assert np.sort(chosen).tolist() == brightness[:2].tolist()
