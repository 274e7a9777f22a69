"""Trackers: their contract, how one is chosen, and the messages about those that cannot be used."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from raydc.errors import InputError
from raydc.spec import catalog
from raydc.spec.catalog import TrackerEntry
from raydc.spec.registry import Registry
from raydc.spec.result import Row
from raydc.spec.study import StudySpec
from raydc.testing.trackers import TrackerContract
from raydc.tracking import mlflow_tracker, trackers
from raydc.tracking.mlflow_client import default_uri
from raydc.tracking.tracker import NoTracker, Tracker, TrackerContext
from tests.tracking.json_lines import plugin_text


@pytest.mark.mlflow
class TestMlflow(TrackerContract):
    def create(self, context: TrackerContext) -> Tracker:
        return mlflow_tracker.create(context)

    def recorded(self, context: TrackerContext) -> list[tuple[str, str]]:
        rows = trackers.read_record(context.study, default_uri(context.folder)).rows
        return [(row["evaluation_id"], row["status"]) for row in rows]


class TestNothing(TrackerContract):
    records = False

    def create(self, context: TrackerContext) -> Tracker:
        return NoTracker(context)

    def recorded(self, context: TrackerContext) -> list[tuple[str, str]]:
        assert not {"mlflow.db", "tracked.jsonl"} & {path.name for path in context.folder.iterdir()}
        return []


@pytest.fixture
def json_lines(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The class of the guide's plugin."""
    monkeypatch.setattr(catalog, "TRACKERS", Registry("tracker"))
    module: dict[str, Any] = {}
    exec(plugin_text(), module)
    assert [entry.name for entry in catalog.TRACKERS] == ["json-lines"]
    return module["JsonLines"]


class TestJsonLines(TrackerContract):
    @pytest.fixture(autouse=True)
    def _plugin(self, json_lines: Any) -> None:
        self.made = json_lines

    def create(self, context: TrackerContext) -> Tracker:
        tracker: Tracker = self.made(context)
        return tracker

    def recorded(self, context: TrackerContext) -> list[tuple[str, str]]:
        rows = map(json.loads, (context.folder / "record.jsonl").read_text().splitlines())
        return [(row["evaluation_id"], row["status"]) for row in rows]


class Forgetful(NoTracker):
    """Records every row that it is given, each time, and no status that changes."""

    def __init__(self, context: TrackerContext) -> None:
        self.path = context.folder / "forgetful"

    def record(self, rows: Iterable[Row]) -> None:
        with self.path.open("a") as file:
            file.writelines(f"{row['evaluation_id']} finished\n" for row in rows)


class ForgetfulContract(TrackerContract):
    def create(self, context: TrackerContext) -> Tracker:
        return Forgetful(context)

    def recorded(self, context: TrackerContext) -> list[tuple[str, str]]:
        return [tuple(line.split()) for line in (context.folder / "forgetful").read_text().splitlines()]  # type: ignore[misc]


@pytest.mark.parametrize("broken", ["repeated_rows_are_recorded_once", "rows_are_recorded_with_their_status"])
def test_the_contract_finds_a_tracker_that_breaks_it(broken: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        getattr(ForgetfulContract(), f"test_{broken}")(tmp_path)


# --- choosing -------------------------------------------------------------------------------------


class Remembering(NoTracker):
    """Keeps what it was told."""

    def __init__(self, context: TrackerContext) -> None:
        self.told = context


def refusing(context: TrackerContext) -> Tracker:
    raise InputError(f"tracking.uri is {context.uri!r}, but must be a folder")


def broken(context: TrackerContext) -> Tracker:
    raise ZeroDivisionError("a bug")


def no_tracker_at_all(context: TrackerContext) -> object:
    return object()


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch, small: Callable[..., StudySpec]) -> Callable[..., StudySpec]:
    """The small study, recorded by a tracker of this module, with some keys of `tracking`."""

    def make(target: str, *settings: str) -> StudySpec:
        keys = (catalog.TRACKING_URI, catalog.Key("tracking.level", catalog.Whole(0, 9), "a level", 3))
        entry = TrackerEntry("mine", f"tests.tracking.test_trackers:{target}", "mine", keys)
        monkeypatch.setitem(catalog.TRACKERS._entries, "mine", entry)
        return small("tracking.kind=mine", *(f"tracking.{setting}" for setting in settings))

    return make


def create(study: StudySpec, folder: Path) -> Tracker:
    return trackers.create(study, folder, ["images.ipc"], resuming=True)


def test_a_tracker_is_told_about_its_study(study: Callable[..., StudySpec], tmp_path: Path) -> None:
    tracker = create(study("Remembering", "uri=somewhere"), tmp_path)
    assert isinstance(tracker, Remembering)
    assert tracker.told == TrackerContext(
        "small", tmp_path, "somewhere", {"level": 3}, ("images.ipc",), resuming=True
    )


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (
            "absent",
            "tracking.kind is mine, whose code (tests.tracking.test_trackers:absent) cannot be used: Attr",
        ),
        ("broken", "cannot be used: ZeroDivisionError('a bug')"),
        ("refusing", "tracking.uri is None, but must be a folder"),
        ("no_tracker_at_all", "returns a object, which lacks the method 'start'"),
    ],
)
def test_a_tracker_that_cannot_be_used(
    study: Callable[..., StudySpec], tmp_path: Path, target: str, said: str
) -> None:
    with pytest.raises(InputError) as raised:
        create(study(target), tmp_path)
    assert said in str(raised.value)


def test_system_metrics_need_psutil(
    small: Callable[..., StudySpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow_tracker, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"tracking\.system_metrics is true, which needs psutil"):
        create(small("tracking.system_metrics=true"), tmp_path)
    assert create(small(), tmp_path).close is not None
