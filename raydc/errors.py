"""The exceptions of raydc, with one base class.

`InputError` is for invalid input of a user: its text is one sentence with what was given, what is allowed and
what to do; the command line prints it and exits with 2. Invariants of the code are assertions.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from urllib.parse import unquote_plus, urlsplit

SECRETS = ("access_key", "secret_key", "session_token", "client_secret", "password", "token")
"""Parameters of a URI that are secret."""


class RaydcError(Exception):
    """Base class of all exceptions that raydc raises on purpose."""


class InputError(RaydcError, ValueError):
    """Input of a user cannot be used; no work was started."""


class EvaluationError(RaydcError, RuntimeError):
    """One evaluation cannot finish; it is recorded as failed and the other evaluations continue."""


class StoppedError(RaydcError, RuntimeError):
    """A scheduler has stopped an evaluation early; its result is never reused."""


class ArtifactError(RaydcError, RuntimeError):
    """An artifact is missing from the store, or its content differs from what was written."""


class StoreError(RaydcError, OSError):
    """The store cannot be read or written: it is full, read-only, or does not answer."""


class FolderError(RaydcError, OSError):
    """The study's folder cannot be written, so results cannot be saved; the run stops."""


class TrackingError(RaydcError, RuntimeError):
    """The tracking server does not answer or rejects a request."""


def without_password(uri: str) -> str:
    """`scheme://user:password@host` as `scheme://user@host`, without `SECRETS`, for printing and storing."""
    try:
        _ = urlsplit(uri).port
    except ValueError:  # not a valid URI, e.g. with a / in the password; reported where it is used
        return re.sub(r"(://[^/:@]*):.*@", r"\1@", uri)
    place, _mark, query = uri.partition("?")
    kept = [pair for pair in query.split("&") if unquote_plus(pair.partition("=")[0]) not in SECRETS]
    shown = re.sub(r"(://[^/:@]*):[^/]*@", r"\1@", place)
    return f"{shown}?{'&'.join(kept)}" if any(kept) else shown


def one_of(names: Iterable[object]) -> str:
    """`a, b or c`, for messages with the allowed values."""
    words = [str(name) for name in names]
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} or {words[-1]}"


def nearest(name: str, options: Iterable[str]) -> str | None:
    """The option that is most similar to `name`, or None."""
    found = difflib.get_close_matches(str(name), list(options), n=1, cutoff=0.6)
    return found[0] if found else None


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """`; did you mean X?`, or an empty string."""
    option = nearest(name, options)
    return f"; did you mean {option}?" if option is not None else ""
