"""A quick check whether a tracking server answers, without importing mlflow."""

from __future__ import annotations

import base64
import os
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

import requests

from raydc.errors import TrackingError, one_of, without_password

TIMEOUT_SECONDS = 10.0
PAGE = "/api/2.0/mlflow/experiments/search?max_results=1"
"""A request that every MLflow server answers to authenticated users."""
SCHEMES = ("", "http", "https", "sqlite", "postgresql", "mysql", "mssql", "file", "databricks")
"""Schemes of tracking URIs that MLflow supports; a URI without a scheme is a folder."""


def probe(uri: str) -> None:
    """Raise `TrackingError` if `uri` is not a tracking URI of MLflow, or if the server does not answer.

    Only servers (http, https) are checked; databases and folders are checked when they are opened.
    """
    scheme = uri.partition(":")[0] if ":" in uri else ""
    if not uri.strip() or scheme.partition("+")[0] not in SCHEMES:
        raise TrackingError(
            f"the tracking URI is {without_password(uri)!r}, but must be a folder or begin with "
            f"{one_of(f'{name}:' for name in SCHEMES if name)}"
        )
    if scheme not in ("http", "https"):
        return
    shown = without_password(uri)
    try:
        parts = urlsplit(uri)
        host = parts.netloc.rpartition("@")[2]
        address = parts._replace(netloc=host).geturl().rstrip("/") + PAGE
        headers = _credentials(parts)
        trust = _trust()
        with requests.get(address, headers=headers, timeout=TIMEOUT_SECONDS, stream=True, **trust) as answer:
            code = answer.status_code
    except (OSError, ValueError) as error:
        raise TrackingError(
            f"MLflow at {shown} does not answer ({_root(error).replace(uri, shown)})"
        ) from None
    if code in (401, 403):
        raise TrackingError(
            f"MLflow at {shown} rejects the name, password or token (HTTP {code}); set "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
        )
    if code >= 300:
        # MLflow with basic authentication fails for a token.
        sent = headers.get("Authorization", "").startswith("Bearer")
        hint = "; does it take MLFLOW_TRACKING_TOKEN, or a name and a password?" if sent else ""
        raise TrackingError(f"MLflow at {shown} does not answer as MLflow does (HTTP {code}){hint}")


def _root(error: BaseException) -> str:
    """The text of the original error, which requests wraps in other errors."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return str(error)


def _trust() -> dict[str, Any]:
    """TLS options for requests, the same as those of MLflow's client."""
    unchecked = os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1")
    return {
        "verify": os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or not unchecked,
        "cert": os.environ.get("MLFLOW_TRACKING_CLIENT_CERT_PATH"),
    }


def _credentials(address: SplitResult) -> dict[str, str]:
    """Credentials as in MLflow's client: those of the URI first, and a password before a token."""
    name, password = unquote(address.username or ""), unquote(address.password or "")
    if not name:
        name = os.environ.get("MLFLOW_TRACKING_USERNAME", "")
        password = os.environ.get("MLFLOW_TRACKING_PASSWORD", "")
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    if not (name and password):
        return {"Authorization": f"Bearer {token}"} if token else {}
    pair = f"{name}:{password}"
    return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
