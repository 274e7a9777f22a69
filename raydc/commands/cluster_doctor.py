"""raydc doctor --address: checks, node by node, that a cluster can run studies."""

from __future__ import annotations

from collections.abc import Iterator

from raydc.commands.doctor import Finding
from raydc.errors import without_password
from raydc.orchestration.cluster import connected, probe
from raydc.orchestration.nodes import Node, survey, versions
from raydc.spec.study_file import Resources


def examine_cluster(address: str, tracking_uri: str | None, store: str | None) -> list[Finding]:
    """All checks of the cluster at Ray's `address`; `InputError` if it cannot be joined."""
    probe(address)
    with connected(address, Resources()) as capacity:
        seen = survey(store, tracking_uri)
    nodes = "1 node" if len(seen.nodes) == 1 else f"{len(seen.nodes)} nodes"
    found = [Finding("cluster", True, f"{nodes}, {capacity.cpus} CPUs, {capacity.gpus:g} GPUs")]
    for node in seen.nodes:
        found += _of_node(node, store)
    problem = seen.tracking_problem
    server = without_password(tracking_uri) if tracking_uri else "none given: SQLite in the study's folder"
    fix = "start the server, or correct the address, user name or password in the head's environment"
    return [*found, Finding("mlflow from head", problem is None, problem or server, fix)]


def _of_node(node: Node, store: str | None) -> Iterator[Finding]:
    name = f"head {node.address}" if node.is_head else f"node {node.address}"
    if node.look is None:
        fix = "install the driver's versions of raydc, torch and Ray on every node"
        yield Finding(name, False, node.problem or "no answer", fix)
        return
    ours, theirs = versions(), node.look.versions
    differs = [f"{what} {theirs[what]} (driver: {ours[what]})" for what in ours if theirs[what] != ours[what]]
    equal = ", ".join(f"{what} {number}" for what, number in ours.items())
    fix = "install the driver's versions on every node"
    yield Finding(f"{name}: versions", not differs, ", ".join(differs) or equal, fix)
    if store is not None:
        problem = node.look.store_problem
        fix = "use a store that every node can reach, and give every node its credentials"
        readable = f"{without_password(store)} read and written"
        yield Finding(f"{name}: store", problem is None, problem or readable, fix)
    gpus = f"{node.look.gpus} seen by torch, {node.gpus} counted by Ray"
    fix = "install a torch build and a GPU driver that fit the GPUs, or start Ray with the right --num-gpus"
    yield Finding(f"{name}: GPUs", node.look.gpus == node.gpus, gpus, fix)
