"""The `tracking` block: which tracker records a study, and what is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from raydc.errors import InputError
from raydc.spec.study import StudySpec, parse_study


@pytest.mark.parametrize(
    ("block", "kind", "options"),
    [
        ("", "mlflow", {"uri": None, "system_metrics": False}),
        ("tracking: {}", "mlflow", {"uri": None, "system_metrics": False}),
        ("tracking: {uri: null}", "mlflow", {"uri": None, "system_metrics": False}),
        (
            "tracking: {uri: 'http://h', system_metrics: true}",
            "mlflow",
            {"uri": "http://h", "system_metrics": True},
        ),
        ("tracking: {kind: mlflow}", "mlflow", {"uri": None, "system_metrics": False}),
        ("tracking: {kind: none}", "none", {}),
        ("tracking: {kind: none, uri: null}", "none", {}),
    ],
)
def test_a_block_names_a_tracker(
    small: Callable[..., StudySpec], block: str, kind: str, options: object
) -> None:
    tracking = small(extra=block).tracking
    assert (tracking.kind, tracking.options) == (kind, options)
    assert tracking.uri == tracking.options.get("uri")


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ("{kind: mlfow}", "tracking.kind is 'mlfow', but must be mlflow or none; did you mean mlflow?"),
        ("{kind: null}", "tracking.kind is null, but must be mlflow or none"),
        ("{kind: [mlflow]}", "tracking.kind is ['mlflow'], but must be mlflow or none"),
        (
            "{kind: none, uri: 'http://me:secret@h:5000'}",
            "tracking.uri is 'http://me@h:5000', but tracking.kind is none, which does not have this key; "
            "leave it out or choose the kind mlflow",
        ),
        ("{kind: none, system_metrics: true}", "tracking.system_metrics is true, but tracking.kind is none"),
        (
            "{url: x}",
            "tracking.url is not a key of tracking; with kind mlflow it has kind, uri and system_metrics; "
            "did you mean uri?",
        ),
        ("{uri: 5}", "tracking.uri is 5, but must be a URI or a path, or null"),
        ("{system_metrics: 1}", "tracking.system_metrics is 1, but must be true or false"),
        ("mlflow", "tracking is 'mlflow', but must be a mapping such as {kind: mlflow, uri: URI}"),
    ],
)
def test_a_block_that_cannot_be_is_refused(small: Callable[..., StudySpec], block: str, said: str) -> None:
    with pytest.raises(InputError) as raised:
        small(extra=f"tracking: {block}")
    assert str(raised.value).startswith("small.yaml: ")
    assert said in str(raised.value)


def test_a_study_as_merged_keeps_its_tracker(small: Callable[..., StudySpec]) -> None:
    study = small("tracking.kind=none", extra="tracking: {uri: null}")
    assert parse_study(study.to_yaml(), "study.yaml").tracking == study.tracking
    assert study.located(None, None).tracking == study.located("", None).tracking == study.tracking
    other = small().located("http://h:5000", None)
    assert other.tracking.uri == "http://h:5000"
    assert parse_study(other.to_yaml(), "study.yaml").tracking == other.tracking


def test_a_tracking_uri_needs_a_tracker_that_takes_one(small: Callable[..., StudySpec]) -> None:
    with pytest.raises(InputError) as raised:
        small("tracking.kind=none").located("http://me:secret@h:5000", None)
    assert str(raised.value) == (
        "--tracking-uri is 'http://me@h:5000', but tracking.kind is none, which takes no URI; leave it out, "
        "or choose another tracker with --set tracking.kind=mlflow"
    )
