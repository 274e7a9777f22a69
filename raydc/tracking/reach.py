"""Whether a tracking server answers, found out in a moment and without loading mlflow."""

from __future__ import annotations

import base64
import os
import urllib.error
import urllib.request

from raydc.errors import TrackingError

TIMEOUT_SECONDS = 10.0


def probe(uri: str) -> None:
    """Raise `TrackingError` if the MLflow server at an http(s) `uri` does not answer or lets us in.

    Databases and other URIs are not probed; the tracker itself finds out.
    """
    if not uri.startswith(("http://", "https://")):
        return
    address = uri.rstrip("/") + "/api/2.0/mlflow/experiments/search?max_results=1"
    request = urllib.request.Request(address, headers=_credentials())
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS):
            return
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            raise TrackingError(
                f"MLflow at {uri} refuses the name or password (HTTP {error.code}); set "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            ) from None
        raise TrackingError(f"MLflow at {uri} does not answer as MLflow does (HTTP {error.code})") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise TrackingError(f"MLflow at {uri} does not answer ({reason})") from None


def _credentials() -> dict[str, str]:
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    if token:
        return {"Authorization": f"Bearer {token}"}
    name = os.environ.get("MLFLOW_TRACKING_USERNAME")
    if not name:
        return {}
    pair = f"{name}:{os.environ.get('MLFLOW_TRACKING_PASSWORD', '')}"
    return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
