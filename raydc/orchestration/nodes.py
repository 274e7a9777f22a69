"""Survey of a cluster's nodes, with a task on each."""

from __future__ import annotations

import os
import platform
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import ray
import torch
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import raydc
from raydc.errors import ArtifactError, InputError, TrackingError
from raydc.store.artifact import Store
from raydc.store.opening import open_store
from raydc.tracking.reach import probe

PATIENCE_SECONDS = 120.0
"""Time for a node to answer; it may have to import torch first."""
HEAD = "node:__internal_head__"
KIND, FILE = "probe", "bytes"


@dataclass(frozen=True)
class NodeReport:
    """What one node reports about itself."""

    versions: dict[str, str]
    gpus: int
    """Number of GPUs that torch sees on the node."""
    store_problem: str | None
    """Why the store cannot be read and written on the node; None if it can."""


@dataclass(frozen=True)
class Node:
    """A live node."""

    id: str
    address: str
    is_head: bool
    gpus: int
    """Number of GPUs that Ray counts on the node."""
    look: NodeReport | None = None
    problem: str | None = None
    """Why the node gave no report; None if it did."""


@dataclass(frozen=True)
class Cluster:
    """The nodes of a cluster, and whether its head reaches MLflow."""

    nodes: Sequence[Node]
    tracking_problem: str | None
    """Why MLflow does not answer the head; None if it does, or was not checked."""


def versions() -> dict[str, str]:
    """Versions of the software that must be equal on all nodes."""
    return {
        "python": platform.python_version(),
        "ray": ray.__version__,
        "torch": torch.__version__,
        "raydc": raydc.__version__,
    }


def survey(store_uri: str | None, tracking_uri: str | None) -> Cluster:
    """Query every node of the connected cluster; each reads an artifact of the driver and writes one."""
    alive = [_node(entry) for entry in ray.nodes() if entry["Alive"]]
    head = next(node for node in alive if node.is_head)
    asked = None if tracking_uri is None else _ask(head, tracking_problem, tracking_uri)
    with _written(store_uri, alive) as ours:
        looks = [_ask(node, look, store_uri, ours, node.id) for node in alive]
        seen = [_answered(node, ref) for node, ref in zip(alive, looks, strict=True)]
    return Cluster(seen, None if asked is None else ray.get(asked, timeout=PATIENCE_SECONDS))


def _ask(node: Node, question: Callable[..., Any], *given: Any) -> ray.ObjectRef:
    """Start a task on one node, in its own process, that uses none of the students' resources."""
    strategy = NodeAffinitySchedulingStrategy(node.id, soft=False)
    task = ray.remote(num_cpus=0, max_calls=1, scheduling_strategy=strategy)(question)
    return task.remote(*given)


def _answered(node: Node, asked: ray.ObjectRef) -> Node:
    try:
        return replace(node, look=ray.get(asked, timeout=PATIENCE_SECONDS))
    except RayError as error:
        return replace(node, problem=" ".join(str(error).split())[-300:])


@contextmanager
def _written(store_uri: str | None, nodes: Sequence[Node]) -> Iterator[str]:
    """Write a test artifact to the store and yield its name; on exit, remove it and those of the nodes."""
    ours = f"driver-{uuid.uuid4().hex}"
    if store_uri is None:
        yield ours
        return
    store = open_store(store_uri)
    write(store, ours)
    try:
        yield ours
    finally:
        for name in (ours, *(node.id for node in nodes)):
            store.remove(KIND, name)


def write(store: Store, name: str) -> None:
    """Write an artifact of a few bytes."""
    with store.draft(KIND) as draft:
        draft.path(FILE).write_bytes(name.encode())
        draft.commit(name)


def look(store_uri: str | None, ours: str, own: str) -> NodeReport:
    """Report this node's versions and GPUs, and whether it reads the driver's artifact and writes its own."""
    # Ray hides the GPUs from a task that requests none.
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    problem = None if store_uri is None else _store_problem(store_uri, ours, own)
    return NodeReport(versions(), torch.cuda.device_count(), problem)


def _store_problem(store_uri: str, ours: str, own: str) -> str | None:
    try:
        store = open_store(store_uri)
        found = store.find(KIND, ours)
        if found is None or found.path(FILE).read_bytes() != ours.encode():
            return "it does not see what the driver wrote there"
        write(store, own)
    except (InputError, ArtifactError, OSError) as error:
        return " ".join(str(error).split())[:300]
    return None


def tracking_problem(uri: str) -> str | None:
    """Why MLflow does not answer this machine; None if it does."""
    try:
        probe(uri)
    except TrackingError as error:
        return str(error)
    return None


def _node(entry: dict[str, Any]) -> Node:
    resources = entry["Resources"]
    return Node(entry["NodeID"], entry["NodeManagerAddress"], HEAD in resources, int(resources.get("GPU", 0)))
