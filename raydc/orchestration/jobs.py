"""Studies as Ray jobs: pack, submit, follow, find and stop them.

    raydc submit --HTTP, token--> job server of the head --> driver: python -m raydc run --address auto

The driver runs on the cluster, and followers read its log file, so the job does not depend on them: a
follower can detach or lose its connection at any time.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import shlex
import socket
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import aiohttp
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient

from raydc.errors import SECRETS, InputError
from raydc.orchestration.cluster import PROBE_SECONDS, token_refused
from raydc.spec import plugins
from raydc.spec.catalog import DATASETS
from raydc.spec.study import StudySpec

STUDY_FILE = "study.yaml"
STOP_SECONDS = 60
"""Time for a stopped driver to write its results; Ray's default of 3 s is too short for MLflow."""
POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Job:
    """What the driver of a job runs."""

    study: StudySpec
    """The study; its paths, store and server are those seen from the cluster."""
    out: str | None = None
    """Folder of the results on the driver's machine; None is raydc-runs/NAME in the home folder."""
    options: Sequence[str] = ()
    """Further options of `raydc run`."""

    @property
    def entrypoint(self) -> str:
        """The shell command of the driver."""
        name = self.study.name
        out = shlex.quote(self.out) if self.out else f'"$HOME"/raydc-runs/{shlex.quote(name)}'
        store = ["--store", self.study.store_uri] if self.study.store_uri else []
        rest = shlex.join([*store, "--address", "auto", *self.options])
        return f"python -m raydc run {STUDY_FILE} --out {out} {rest}"


def is_loopback(address: str) -> bool:
    """Whether a URL points to this machine (or to a tunnel that starts here)."""
    host = urlsplit(address).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check(job: Job, address: str) -> None:
    """Raise `InputError` if the cluster at `address` could not reach the study's store or files."""
    study = job.study
    store = study.store_uri
    if not is_loopback(address) and (store is None or "://" not in store):
        given = "no store is given" if store is None else f"--store is {store!r}, a folder of this machine"
        raise InputError(
            f"{given}, but every node of {address} must reach it; give a URI such as s3://bucket/folder, or "
            "file:///FOLDER for one that all nodes mount"
        )
    for option, uri in (("--store", store), ("--tracking-uri", study.tracking.uri)):
        if uri is not None and _holds_secret(uri):
            raise InputError(
                f"{option} holds a password, which everyone with access to the cluster's jobs could read; "
                "leave it out and set it in the environment of the cluster's nodes"
            )
    for key, path in _paths(study):
        if "://" not in path and not Path(path).is_absolute():
            raise InputError(
                f"{study.source}: {key} is {path!r}, a relative path, but on a cluster must be "
                "absolute; give the path on the cluster's nodes"
            )


def _holds_secret(uri: str) -> bool:
    parts = urlsplit(uri)
    return parts.password is not None or any(name in SECRETS for name in parse_qs(parts.query))


def _paths(study: StudySpec) -> Iterator[tuple[str, str]]:
    """Every file or folder that a study reads, with the key that names it."""
    data = study.dataset
    if data.source == "named":
        if DATASETS[data.name].fetchable:
            yield "dataset.root", data.location or "data"
    elif data.location is not None and data.source != "hub":
        yield f"dataset.{data.source}", data.location
    for teacher in (*study.teachers.values(), *((study.scorer,) if study.scorer else ())):
        if teacher.checkpoint is not None:
            yield f"{teacher.name}.checkpoint", teacher.checkpoint
    for values in (study.base, *study.grids):
        for key in ("images.path", "labels.path"):
            given = values.get(key)
            for path in (given,) if given is None or isinstance(given, str) else given:
                if path is not None:
                    yield key, str(path)


def connect(address: str) -> JobSubmissionClient:
    """The job server at a URL; `InputError` if none answers there, or if it rejects the token."""
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(
            f"--address is {address!r}, but must be the URL of the cluster's job server, such as "
            "http://127.0.0.1:8265"
        )
    for part in (
        "dashboard.modules.dashboard_sdk",
        "dashboard.modules.job.sdk",
        "_private.runtime_env.packaging",
    ):
        logging.getLogger(f"ray.{part}").setLevel(logging.ERROR)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname, port), timeout=PROBE_SECONDS).close()
    except (OSError, ValueError) as error:
        raise _silent(address, error) from None
    with _asking(address):
        return JobSubmissionClient(address)


def _silent(address: str, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:200]
    return InputError(
        f"--address is {address!r}, where no Ray job server answers ({reason}); start the cluster, or a "
        "tunnel to its head"
    )


@contextmanager
def _asking(address: str) -> Iterator[None]:
    """Convert errors of the job server's client into one-sentence `InputError`s."""
    try:
        yield
    except InputError:
        raise
    except AuthenticationError:
        raise token_refused(address) from None
    except (OSError, RuntimeError, ValueError) as error:
        raise _silent(address, error) from None


def submit(client: JobSubmissionClient, address: str, job: Job) -> str:
    """Submit a study with its plugins; returns the job's id."""
    name = f"raydc-{job.study.name}-{uuid.uuid4().hex[:8]}"
    with tempfile.TemporaryDirectory(prefix="raydc-job-") as folder:
        variables = {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS), **pack(job.study, Path(folder))}
        with _asking(address):
            client.submit_job(
                entrypoint=job.entrypoint,
                submission_id=name,
                runtime_env={"working_dir": folder, "env_vars": variables},
                metadata={"raydc.study": job.study.name},
            )
    return name


def pack(study: StudySpec, folder: Path) -> dict[str, str]:
    """Write the merged study and the plugin files to `folder`; returns the environment that names them.

    Every process of a job starts in this folder.
    """
    (folder / STUDY_FILE).write_text(study.to_yaml(), encoding="utf-8")
    return plugins.copy_to(folder)


def follow(client: JobSubmissionClient, address: str, job: str, write: Callable[[str], None]) -> int:
    """Write a job's log as it grows; returns the exit code of its run (130 if it was stopped).

    Raises `InputError` if there is no such job, if it never started, or if the cluster is lost.
    """
    seen = 0
    while True:
        seen = asyncio.run(_tail(client, job, write, seen))
        if (code := ended(client, address, job)) is not None:
            return code
        time.sleep(POLL_SECONDS)


async def _tail(client: JobSubmissionClient, job: str, write: Callable[[str], None], seen: int) -> int:
    """Write the log after its first `seen` characters until the connection ends; returns the new `seen`."""
    place = 0
    try:
        async for text in client.tail_job_logs(job):
            write(text[max(0, seen - place) :])
            place += len(text)
            seen = max(seen, place)
    except (aiohttp.ClientError, OSError, RuntimeError):
        pass  # The caller checks the job's status next, and reconnects for the rest of the log.
    return seen


def ended(client: JobSubmissionClient, address: str, job: str) -> int | None:
    """The exit code of a job's run, or None while it is running."""
    with _asking(address):
        try:
            details = client.get_job_info(job)
        except RuntimeError as error:
            if "404" not in str(error):
                raise
            raise _unknown(job, address) from None
    if not details.status.is_terminal():
        return None
    if details.status == JobStatus.STOPPED:
        return 130
    if details.driver_exit_code is None:
        reason = " ".join(str(details.message).split())[:300]
        raise InputError(
            f"the job {job} did not start or lost its machine ({reason}); submit the study again"
        )
    code = int(details.driver_exit_code)
    return code if code >= 0 else 128 - code


def _unknown(job: str, address: str) -> InputError:
    return InputError(
        f"the cluster at {address} has no job {job!r}; `ray job list --address {address}` shows what it has"
    )


def stop(client: JobSubmissionClient, address: str, job: str) -> bool:
    """Stop a job after it has written its results; returns whether it was running."""
    if ended(client, address, job) is not None:
        return False
    with _asking(address):
        client.stop_job(job)
    deadline = time.monotonic() + 2 * STOP_SECONDS
    while ended(client, address, job) is None:
        if time.monotonic() > deadline:
            raise InputError(f"the job {job} has not ended in {2 * STOP_SECONDS} s; try again")
        time.sleep(POLL_SECONDS)
    return True
