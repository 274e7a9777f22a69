"""Ray clusters: started on this machine with explicit sizes, or joined at an address."""

from __future__ import annotations

import gc
import logging
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import AuthenticationError

from raydc.errors import InputError
from raydc.spec import plugins
from raydc.spec.study_file import Resources

PROBE_SECONDS = 5.0
JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Environment variable that is set inside a Ray job."""
OBJECT_STORE_BYTES = 256 * 2**20
"""Object store size of a local cluster; images and labels go through the raydc store, not through Ray's."""


@dataclass(frozen=True)
class Capacity:
    """Resources that a study may use at the same time."""

    cpus: int
    node_cpus: int
    """CPU cores of the largest node; a task that requests more waits forever."""
    gpus: float
    workers: int
    """Number of students trained at the same time."""

    @property
    def places(self) -> int:
        """Number of teachers that can have their own GPU, or their own core without GPUs."""
        return max(1, int(self.gpus) or self.cpus)


def local_cpus() -> int:
    """Number of cores that this process may run on."""
    return len(os.sched_getaffinity(0))


def probe(address: str) -> None:
    """Raise `InputError` unless something listens at a cluster's `address` (HOST:PORT or ray://...)."""
    if address in ("auto", "local"):
        return
    if address.startswith(("http://", "https://")):
        raise InputError(
            f"--address or RAY_ADDRESS is {address!r}, the URL of a job server, but must be Ray's own "
            "address (HOST:6379, or auto on a machine of the cluster); `raydc submit` takes the URL"
        )
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=PROBE_SECONDS):
            return
    except (OSError, ValueError) as error:
        raise InputError(
            f"--address is {address!r}, where no Ray cluster answers ({error}); start one, or leave out "
            "--address and RAY_ADDRESS"
        ) from None


def token_refused(address: str) -> InputError:
    """The error if a cluster rejects the token; Ray sends none unless the mode is set."""
    if os.environ.get("RAY_AUTH_MODE") != "token":
        return InputError(
            f"--address is {address!r}, a cluster that requires a token; set RAY_AUTH_MODE=token, and its "
            "token in RAY_AUTH_TOKEN or its file in RAY_AUTH_TOKEN_PATH"
        )
    return InputError(
        f"--address is {address!r}, which rejects the token; set RAY_AUTH_TOKEN to the cluster's token, or "
        "RAY_AUTH_TOKEN_PATH to its file (by default ~/.ray/auth_token)"
    )


@contextmanager
def _plugins() -> Iterator[dict[str, Any] | None]:
    """Ray's runtime environment that copies plugin files to a cluster's workers.

    None without such files, and in a Ray job, whose workers start in the job's folder.
    """
    if not plugins.files() or JOB in os.environ:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="raydc-plugins-") as folder:
        yield {"working_dir": folder, "env_vars": plugins.copy_to(Path(folder))}


@contextmanager
def connected(address: str | None, resources: Resources) -> Iterator[Capacity]:
    """Connect to the cluster at `address`, or to one that is started here and ended with the block.

    Raises `InputError` if there is no cluster at `address`.
    """
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # The bundle searcher reports trials that died; Tune would show the traceback of its own call.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    common = {"logging_level": logging.ERROR, "log_to_driver": False, "namespace": "raydc"}
    if address is None:
        students = resources.workers if isinstance(resources.workers, int) else 1
        ray.init(
            "local",
            num_cpus=max(local_cpus(), students * resources.threads),
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            **common,
        )
    else:
        try:
            with _plugins() as sent:
                ray.init(address, runtime_env=sent, **common)
        except AuthenticationError:
            raise token_refused(address) from None
        except ConnectionError:
            # Ray does not report why a listening head closed the connection.
            raise InputError(
                f"--address is {address!r}, which refuses the connection: it is not a Ray cluster, or it has "
                "another token; set RAY_AUTH_MODE=token, and its token in RAY_AUTH_TOKEN or its file in "
                "RAY_AUTH_TOKEN_PATH, or leave out --address and RAY_ADDRESS"
            ) from None
        except (RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"--address is {address!r}, where no Ray cluster answers ({reason}); start one, or leave "
                "out --address and RAY_ADDRESS"
            ) from None
    try:
        yield capacity(resources)
    finally:
        _shut_down()


def _shut_down() -> None:
    """Shut down Ray, or disconnect from it, with garbage collection disabled.

    If another thread collected a reference to a Ray object while Ray's core shuts down, this process would
    end ("The core worker has already been shutdown").
    """
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        ray.shutdown()
    finally:
        if enabled:
            gc.enable()


def capacity(resources: Resources) -> Capacity:
    """The resources that the connected cluster offers to a study."""
    total = ray.cluster_resources()
    cpus, gpus = int(total.get("CPU", 1)), float(total.get("GPU", 0))
    node_cpus = max(int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"])
    if isinstance(resources.workers, int):
        workers = resources.workers
    elif gpus:
        workers = max(1, int(gpus * int(1 / resources.gpu_share)))
    else:
        workers = max(1, cpus // resources.threads)
    return Capacity(cpus, max(1, node_cpus), gpus, workers)
