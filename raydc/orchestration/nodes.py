"""What every node of a cluster is, found out by a task on each."""

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
"""A node may have to import torch before it answers."""
HEAD = "node:__internal_head__"
KIND, FILE = "probe", "bytes"


@dataclass(frozen=True)
class Look:
    """What one node says of itself."""

    versions: dict[str, str]
    gpus: int
    """GPUs that torch sees there."""
    store_problem: str | None
    """Why the store cannot be read and written there; None if it can."""


@dataclass(frozen=True)
class Node:
    """A node that is alive."""

    id: str
    address: str
    is_head: bool
    gpus: int
    """That Ray counts there."""
    look: Look | None = None
    problem: str | None = None
    """Why it says nothing of itself."""


@dataclass(frozen=True)
class Cluster:
    """The nodes, and what the head says of MLflow."""

    nodes: Sequence[Node]
    tracking_problem: str | None
    """Why MLflow does not answer there; None if it does, or is not asked."""


def versions() -> dict[str, str]:
    """Of what must be equal on all nodes."""
    return {
        "python": platform.python_version(),
        "ray": ray.__version__,
        "torch": torch.__version__,
        "raydc": raydc.__version__,
    }


def survey(store_uri: str | None, tracking_uri: str | None) -> Cluster:
    """Ask every node of the connected cluster; each reads what we write to the store, and writes."""
    alive = [_node(entry) for entry in ray.nodes() if entry["Alive"]]
    head = next(node for node in alive if node.is_head)
    asked = None if tracking_uri is None else _ask(head, tracking_problem, tracking_uri)
    with _written(store_uri, alive) as ours:
        looks = [_ask(node, look, store_uri, ours, node.id) for node in alive]
        seen = [_answered(node, ref) for node, ref in zip(alive, looks, strict=True)]
    return Cluster(seen, None if asked is None else ray.get(asked, timeout=PATIENCE_SECONDS))


def _ask(node: Node, question: Callable[..., Any], *given: Any) -> ray.ObjectRef:
    """A task on one node, in a process of its own, which takes nothing from the students there."""
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
    """An artifact of ours in the store, and afterwards none of anybody's; its name."""
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
    """An artifact of a few bytes."""
    with store.draft(KIND) as draft:
        draft.path(FILE).write_bytes(name.encode())
        draft.commit(name)


def look(store_uri: str | None, ours: str, own: str) -> Look:
    """This node: its versions, its GPUs, and whether it reads the driver's bytes and writes its own."""
    # Ray hides the GPUs from a task that asks for none.
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    problem = None if store_uri is None else _store_problem(store_uri, ours, own)
    return Look(versions(), torch.cuda.device_count(), problem)


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
