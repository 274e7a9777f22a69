"""Creation of the tracker of a study, and reading of MLflow's records.

Only this module imports the modules that use MLflow (`mlflow_*`), and only when they are needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raydc.errors import InputError, TrackingError
from raydc.spec.study import StudySpec
from raydc.tracking.tracker import NoTracker, Tracker, TrackerContext

if TYPE_CHECKING:
    from raydc.tracking.mlflow_record import Record

METHODS = tuple(name for name in vars(NoTracker) if not name.startswith("_"))
"""Names of the methods of a tracker."""


def create(study: StudySpec, folder: Path, varying: Sequence[str], *, resuming: bool) -> Tracker:
    """The tracker of `study`, not yet started.

    `varying`: dotted keys whose values differ between configurations. Raises `InputError` if the tracker's
    code cannot be loaded, rejects its options, or returns an object that is not a tracker.
    """
    tracking = study.tracking
    options = {name: value for name, value in tracking.options.items() if name != "uri"}
    context = TrackerContext(study.name, folder, tracking.uri, options, tuple(varying), resuming)
    entry = tracking.entry
    what = f"tracking.kind is {entry.name}, whose code ({entry.target})"
    try:
        made: Any = entry.load()(context)
    except (InputError, TrackingError):
        raise
    except Exception as error:  # a plugin may raise any error
        raise InputError(f"{what} cannot be used: {error!r}") from error
    missing = [name for name in METHODS if not callable(getattr(made, name, None))]
    if missing:
        raise InputError(f"{what} returns a {type(made).__name__}, which lacks the method {missing[0]!r}")
    tracker: Tracker = made
    return tracker


def read_record(experiment: str, uri: str) -> Record:
    """The contents of an MLflow experiment at `uri`, including runs of other tools.

    Raises `InputError` if there is no such experiment, `TrackingError` if MLflow does not answer.
    """
    from raydc.tracking import mlflow_record

    return mlflow_record.read_record(experiment, uri)
