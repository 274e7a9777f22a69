"""Whether a tracking server answers, found out in a moment and without loading mlflow."""

from __future__ import annotations

import base64
import os
import ssl
import urllib.error
import urllib.request
from urllib.parse import SplitResult, unquote, urlsplit

from raydc.errors import TrackingError, one_of, without_password

TIMEOUT_SECONDS = 10.0
PAGE = "/api/2.0/mlflow/experiments/search?max_results=1"
"""What every server answers to those whom it lets in."""
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
    try:
        parts = urlsplit(uri)
        host = parts.netloc.rpartition("@")[2]
        address = parts._replace(netloc=host).geturl().rstrip("/") + PAGE
        request = urllib.request.Request(address, headers=_credentials(parts))
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS, context=_trust(scheme)):
            return
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            raise TrackingError(
                f"MLflow at {shown} refuses the name, password or token (HTTP {error.code}); set "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
            ) from None
        # MLflow's own passwords make it fall over a token.
        sent = request.get_header("Authorization", "").startswith("Bearer")
        hint = "; does it take MLFLOW_TRACKING_TOKEN, or a name and a password?" if sent else ""
        raise TrackingError(
            f"MLflow at {shown} does not answer as MLflow does (HTTP {error.code}){hint}"
        ) from None
    except (OSError, ValueError) as error:
        reason = str(getattr(error, "reason", error)).replace(uri, shown)
        raise TrackingError(f"MLflow at {shown} does not answer ({reason})") from None


def _trust(scheme: str) -> ssl.SSLContext | None:
    """Whose certificates we believe: those that MLflow's own client believes."""
    if scheme != "https":
        return None
    return ssl.create_default_context(cafile=os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH"))


def _credentials(address: SplitResult) -> dict[str, str]:
    """As MLflow's client: those of the address before the environment's, and a password before a token."""
    name, password = unquote(address.username or ""), unquote(address.password or "")
    if not name:
        name = os.environ.get("MLFLOW_TRACKING_USERNAME", "")
        password = os.environ.get("MLFLOW_TRACKING_PASSWORD", "")
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    if not (name and password):
        return {"Authorization": f"Bearer {token}"} if token else {}
    pair = f"{name}:{password}"
    return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
