"""A small strict checker of the Kubernetes manifests in cluster/.

The schema of KubeRay's resources is 1.4 MB and the API server's own is larger, so neither is kept here. This
holds, by hand, the kinds that the launchers use: the keys that each level may have (a misspelt one is an
error) and those that it must have (marked with !). The lists are those of KubeRay 1.6 (ray.io/v1) and
Kubernetes 1.30.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

ANY: dict[str, Any] = {}
"""A level whose keys are the user's own."""
META = {"name!": str, "labels": ANY, "annotations": ANY}
FIELD = {"fieldRef": {"fieldPath!": str}, "secretKeyRef": {"name!": str, "key!": str}}
PROBE = {
    "httpGet!": {"path!": str, "port!": int, "scheme": str},
    "periodSeconds": int,
    "timeoutSeconds": int,
    "failureThreshold": int,
}
SECURITY = {
    "allowPrivilegeEscalation!": bool,
    "runAsNonRoot!": bool,
    "runAsUser": int,
    "capabilities!": {"drop!": [str]},
}
CONTAINER = {
    "name!": str,
    "image!": str,
    "command": [str],
    "args": [str],
    "env": [{"name!": str, "value": str, "valueFrom": FIELD}],
    "ports": [{"name": str, "containerPort!": int}],
    "resources!": {"requests!": ANY, "limits!": ANY},
    "securityContext!": SECURITY,
    "readinessProbe": PROBE,
    "livenessProbe": PROBE,
    "volumeMounts": [{"name!": str, "mountPath!": str, "readOnly": bool}],
}
VOLUME = {
    "name!": str,
    "secret": {"secretName!": str, "items": [{"key!": str, "path!": str}]},
    "configMap": {"name!": str},
    "persistentVolumeClaim": {"claimName!": str},
}
POD = {
    "containers!": [CONTAINER],
    "volumes": [VOLUME],
    "serviceAccountName": str,
    "automountServiceAccountToken": bool,
    "restartPolicy": str,
    "securityContext": {"fsGroup": int},
    "affinity": {"nodeAffinity": ANY},
    "tolerations": [{"key!": str, "operator!": str}],
}
TEMPLATE = {"metadata": {"labels": ANY}, "spec!": POD}
RAY_CLUSTER = {
    "rayVersion!": str,
    "authOptions!": {"mode!": str, "secretName": str, "enableK8sTokenAuth": bool},
    "enableInTreeAutoscaling": bool,
    "autoscalerOptions": {"upscalingMode": str, "idleTimeoutSeconds": int},
    "headGroupSpec!": {"rayStartParams!": ANY, "template!": TEMPLATE},
    "workerGroupSpecs!": [
        {
            "groupName!": str,
            "replicas": int,
            "minReplicas!": int,
            "maxReplicas!": int,
            "rayStartParams": ANY,
            "template!": TEMPLATE,
        }
    ],
}
RAY_JOB = {
    "entrypoint!": str,
    "submissionMode": str,
    "submitterPodTemplate": TEMPLATE,
    "backoffLimit": int,
    "shutdownAfterJobFinishes": bool,
    "ttlSecondsAfterFinished": int,
    "activeDeadlineSeconds": int,
    "suspend": bool,
    "runtimeEnvYAML": str,
    "rayClusterSpec!": RAY_CLUSTER,
}
PEER = {"podSelector": {"matchLabels": ANY}, "namespaceSelector": ANY}
POLICY = {
    "podSelector!": {
        "matchLabels": ANY,
        "matchExpressions": [{"key!": str, "operator!": str, "values": [str]}],
    },
    "policyTypes!": [str],
    "ingress": [{"from!": [PEER], "ports": [{"port!": int}]}],
}
CLAIM = {"accessModes!": [str], "resources!": {"requests!": {"storage!": str}}}
SERVICE = {
    "type!": str,
    "selector!": ANY,
    "ports!": [{"name": str, "port!": int, "targetPort": int}],
}
DEPLOYMENT = {
    "replicas": int,
    "strategy": {"type!": str},
    "selector!": {"matchLabels!": ANY},
    "template!": TEMPLATE,
}
KINDS: dict[tuple[str, str], dict[str, Any]] = {
    ("ray.io/v1", "RayCluster"): {"spec!": RAY_CLUSTER},
    ("ray.io/v1", "RayJob"): {"spec!": RAY_JOB},
    ("networking.k8s.io/v1", "NetworkPolicy"): {"spec!": POLICY},
    ("apps/v1", "Deployment"): {"spec!": DEPLOYMENT},
    ("v1", "Service"): {"spec!": SERVICE},
    ("v1", "Pod"): {"spec!": POD},
    ("v1", "PersistentVolumeClaim"): {"spec!": CLAIM},
    ("v1", "ConfigMap"): {"data!": ANY},
    ("v1", "ServiceAccount"): {},
}


def problems(document: Any) -> list[str]:
    """What is wrong with a manifest; nothing for one that the checker knows and finds whole."""
    kind = (document.get("apiVersion"), document.get("kind"))
    if kind not in KINDS:
        return [f"{kind} is not a kind that the launchers use"]
    schema = {"apiVersion!": str, "kind!": str, "metadata!": META, **KINDS[kind]}
    return list(_problems(document, schema, document["kind"]))


def _problems(value: Any, schema: Any, where: str) -> Iterator[str]:
    if schema == ANY:
        return
    if isinstance(schema, list):
        if not isinstance(value, list) or not value:
            yield f"{where} must be a list that holds something"
            return
        for index, part in enumerate(value):
            yield from _problems(part, schema[0], f"{where}[{index}]")
    elif isinstance(schema, dict):
        if not isinstance(value, dict):
            yield f"{where} must be a mapping"
            return
        names = {key.rstrip("!"): part for key, part in schema.items()}
        yield from (f"{where}.{key} is not a key there" for key in value if key not in names)
        needed = [key[:-1] for key in schema if key.endswith("!")]
        yield from (f"{where}.{key} is missing" for key in needed if key not in value)
        for key in value.keys() & names:
            yield from _problems(value[key], names[key], f"{where}.{key}")
    elif type(value) is not schema:
        yield f"{where} is {value!r}, not of the type {schema.__name__}"
