"""Whether a tracking server answers, found out in a moment and without loading mlflow."""

from __future__ import annotations

import base64
import os
import ssl
import urllib.error
import urllib.request

from raydc.errors import TrackingError, one_of, without_password

TIMEOUT_SECONDS = 10.0
SCHEMES = ("", "http", "https", "sqlite", "postgresql", "mysql", "mssql", "file", "databricks")
"""What MLflow keeps its records in; without a scheme it is a folder."""


def probe(uri: str) -> None:
    """Raise `TrackingError` if `uri` cannot be MLflow's, or if the server there does not answer us.

    Only servers (http, https) are asked; databases and folders are found out by opening them.
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
    address = uri.rstrip("/") + "/api/2.0/mlflow/experiments/search?max_results=1"
    try:
        request = urllib.request.Request(address, headers=_credentials())
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS, context=_trust(scheme)):
            return
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            raise TrackingError(
                f"MLflow at {shown} refuses the name or password (HTTP {error.code}); set "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            ) from None
        raise TrackingError(f"MLflow at {shown} does not answer as MLflow does (HTTP {error.code})") from None
    except (OSError, ValueError) as error:
        reason = str(getattr(error, "reason", error)).replace(uri, shown)
        raise TrackingError(f"MLflow at {shown} does not answer ({reason})") from None


def _trust(scheme: str) -> ssl.SSLContext | None:
    """Whose certificates we believe: those that MLflow's own client believes."""
    if scheme != "https":
        return None
    return ssl.create_default_context(cafile=os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH"))


def _credentials() -> dict[str, str]:
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    if token:
        return {"Authorization": f"Bearer {token}"}
    name = os.environ.get("MLFLOW_TRACKING_USERNAME")
    if not name:
        return {}
    pair = f"{name}:{os.environ.get('MLFLOW_TRACKING_PASSWORD', '')}"
    return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
