"""The `tracking` block of a study file: which tracker records the study, and with which options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from raydc.errors import InputError, did_you_mean, one_of, without_password
from raydc.spec.catalog import TRACKERS, TrackerEntry
from raydc.spec.keys import REQUIRED, Choice, Key, Value, show

KIND = Key("tracking.kind", Choice(TRACKERS.names), "tracker that records the study", "mlflow")


@dataclass(frozen=True)
class TrackingSpec:
    """The tracker of a study."""

    kind: str
    """Name of the tracker in the catalogue."""
    options: Mapping[str, Value]
    """Values of the tracker's keys, by their name inside the block, with defaults."""

    @property
    def entry(self) -> TrackerEntry:
        """The tracker's entry in the catalogue."""
        return TRACKERS[self.kind]

    @property
    def uri(self) -> str | None:
        """Where the tracker records; None: its default, or the tracker takes no URI."""
        return self.options.get("uri")

    @property
    def has_defaults(self) -> bool:
        """Whether every option has its default value."""
        return all(self.options[name] == key.default for name, key in _keys_of(self.entry).items())

    def at(self, uri: str) -> TrackingSpec:
        """The same tracker with the URI of `--tracking-uri`; raises `InputError` if it takes none."""
        key = _keys_of(self.entry).get("uri")
        if key is None:
            raise InputError(
                f"--tracking-uri is {without_password(uri)!r}, but tracking.kind is {self.kind}, which takes "
                "no URI; leave it out, or choose another tracker with --set tracking.kind=mlflow"
            )
        try:
            return replace(self, options={**self.options, "uri": key.cast(uri)})
        except ValueError as error:
            raise InputError(f"--tracking-uri {error}") from None


def tracking_of(given: Mapping[str, Any], source: str) -> TrackingSpec:
    """The tracker that a block describes; `InputError` gives the file, the dotted key and what is allowed."""
    where = f"{source}: tracking."
    kind = given.get("kind", KIND.default)
    try:
        KIND.cast(kind)
    except ValueError as error:
        raise InputError(f"{where}kind {error}; a plugin (raydc --plugin FILE) can add others") from None
    keys = _keys_of(TRACKERS[kind])
    for name, value in given.items():
        if name != "kind" and name not in keys:
            _refuse(name, value, kind, where)
    return TrackingSpec(kind, {name: _value(key, given.get(name), kind, where) for name, key in keys.items()})


def _keys_of(entry: TrackerEntry) -> dict[str, Key]:
    """Keys of a tracker by their name inside the block."""
    return {key.name.removeprefix("tracking."): key for key in entry.keys}


def _refuse(name: str, value: Value, kind: str, where: str) -> None:
    """Raise `InputError` for a key that the tracker lacks; null is allowed for keys of other trackers."""
    owners = [entry.name for entry in TRACKERS if name in _keys_of(entry)]
    if not owners:
        known = ["kind", *_keys_of(TRACKERS[kind])]
        listed = one_of(known).replace(" or ", " and ")
        hint = did_you_mean(name, known)
        raise InputError(f"{where}{name} is not a key of tracking; with kind {kind} it has {listed}{hint}")
    if value is not None:
        shown = show(without_password(value) if isinstance(value, str) else value)
        raise InputError(
            f"{where}{name} is {shown}, but tracking.kind is {kind}, which does not have this key; "
            f"leave it out or choose the kind {one_of(owners)}"
        )


def _value(key: Key, given: Value, kind: str, where: str) -> Value:
    """The value of a key of the tracker; null means the default."""
    if given is None and key.default is not REQUIRED:
        return key.default
    name = key.name.removeprefix("tracking.")
    if given is None:
        raise InputError(f"{where}{name} is missing; the tracker {kind} needs {key.describe()}")
    try:
        return key.cast(given)
    except ValueError as error:
        raise InputError(f"{where}{name} {error}") from None
