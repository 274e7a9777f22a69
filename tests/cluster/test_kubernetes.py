"""Manifests against the checker of this folder, and what they promise."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.launchers import KUBERNETES, ROOT, documents, name
from tests.cluster.manifests import problems

RAY = {"raycluster.yaml": ("spec",), "rayjob.yaml": ("spec", "rayClusterSpec")}


def cluster_of(file: str) -> dict[str, Any]:
    (found,) = documents(ROOT / "kubernetes" / file)
    for key in RAY[file]:
        found = found[key]
    return found


@pytest.mark.parametrize("path", KUBERNETES, ids=name)
def test_every_document_is_whole(path: Path) -> None:
    assert [problem for document in documents(path) for problem in problems(document)] == []


def test_the_checker_sees_what_is_wrong() -> None:
    (job,) = documents(ROOT / "kubernetes" / "rayjob.yaml")
    spec = copy.deepcopy(job["spec"])
    spec["entryPoint"] = spec.pop("entrypoint")
    spec["backoffLimit"] = "2"
    del spec["rayClusterSpec"]["workerGroupSpecs"][0]["minReplicas"]
    assert set(problems({**job, "spec": spec})) == {
        "RayJob.spec.entryPoint is not a key there",
        "RayJob.spec.entrypoint is missing",
        "RayJob.spec.backoffLimit is '2', not of the type int",
        "RayJob.spec.rayClusterSpec.workerGroupSpecs[0].minReplicas is missing",
    }
    assert "is not a kind" in problems({**job, "apiVersion": "ray.io/v1alpha1"})[0]


@pytest.mark.parametrize("file", RAY)
def test_ray_asks_for_a_token_and_listens_on_the_address_of_the_pod(file: str) -> None:
    cluster = cluster_of(file)
    assert cluster["authOptions"]["mode"] == "token"
    head = cluster["headGroupSpec"]
    assert head["rayStartParams"]["dashboard-host"] == "$(POD_IP)"
    (container,) = head["template"]["spec"]["containers"]
    (address,) = [one for one in container["env"] if one["name"] == "POD_IP"]
    assert address["valueFrom"]["fieldRef"]["fieldPath"] == "status.podIP"
    # KubeRay's probes ask localhost unless there are others.
    assert container["readinessProbe"] == container["livenessProbe"]


def test_both_clusters_are_the_same_but_for_the_study() -> None:
    one, other = cluster_of("raycluster.yaml"), copy.deepcopy(cluster_of("rayjob.yaml"))
    pod = other["headGroupSpec"]["template"]["spec"]
    pod["volumes"] = [v for v in pod["volumes"] if v["name"] != "study"]
    mounts = pod["containers"][0]["volumeMounts"]
    pod["containers"][0]["volumeMounts"] = [m for m in mounts if m["name"] != "study"]
    assert one == other


def test_every_pod_is_behind_a_policy() -> None:
    selectors = [d for d in documents(ROOT / "kubernetes" / "base.yaml") if d["kind"] == "NetworkPolicy"]
    closed = next(p["spec"] for p in selectors if p["metadata"]["name"] == "raydc-closed")
    assert "ingress" not in closed
    guarded = set(closed["podSelector"]["matchExpressions"][0]["values"])
    labels = [cluster_of(f)[g]["template"] for f in RAY for g in ("headGroupSpec",)]
    labels += [worker["template"] for f in RAY for worker in cluster_of(f)["workerGroupSpecs"]]
    labels += [
        d["spec"]["template"] for d in documents(ROOT / "kubernetes" / "mlflow.yaml") if "Depl" in d["kind"]
    ]
    labels += documents(ROOT / "kubernetes" / "door.yaml")
    (job,) = documents(ROOT / "kubernetes" / "rayjob.yaml")
    labels.append(job["spec"]["submitterPodTemplate"])
    assert {one["metadata"]["labels"]["raydc"] for one in labels} == guarded == {"ray", "mlflow"}


def test_mlflow_has_passwords_tls_and_the_address_of_its_pod() -> None:
    found = {d["kind"]: d for d in documents(ROOT / "kubernetes" / "mlflow.yaml")}
    (container,) = found["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert "basic-auth" in container["command"]
    assert "--host=$(POD_IP)" in container["args"]
    assert any("--ssl-keyfile" in argument for argument in container["args"])
    secrets = {one["name"] for one in container["env"] if "secretKeyRef" in one.get("valueFrom", {})}
    assert secrets == {"MLFLOW_AUTH_ADMIN_PASSWORD", "MLFLOW_FLASK_SERVER_SECRET_KEY"}
    assert found["Service"]["spec"]["type"] == "ClusterIP"
