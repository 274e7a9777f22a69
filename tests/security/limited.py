"""Reads files with little memory and time: `python -m tests.security.limited` answers requests, a line each.

A request is a reader and a path; the answer is the sentence with which the file was refused, or null. Each
file is read in a fork, which may take so much memory beyond what it began with.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import h5py  # noqa: F401 (so that a fork need not)

from raydc.data.array_file import read_array
from raydc.data.image_folder import folder
from raydc.data.imported import read_set
from raydc.data.parquet import parquet
from raydc.data.pixels import planes
from raydc.data.source import Source
from raydc.errors import ArtifactError, InputError
from raydc.labels.fkd import read_batch
from raydc.spec.study import load_study
from raydc.study.sync import read_results
from raydc.teachers.checkpoint import read_state

MEMORY_BYTES = 1500 << 20
SECONDS = 30
"""Of processor time."""
NAMES = ("ant", "bee", "cat")


def _first(source: Source) -> object:
    return planes(source.train.image(0), 32)


READERS: dict[str, Callable[[str], object]] = {
    "set": lambda path: read_set(path, NAMES),
    "state": read_state,
    "fkd": lambda path: read_batch(Path(path)),
    "study": load_study,
    "results": lambda path: read_results(Path(path), "tiny"),
    "array": lambda path: read_array(Path(path)),
    "parquet": lambda path: _first(parquet(path)),
    "folder": lambda path: _first(folder(path)),
}


def attempt(reader: str, path: str) -> str | None:
    """The sentence with which a fork refuses the file; None if it was read, was killed or broke."""
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES,) * 2)
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        try:
            READERS[reader](path)
        except (InputError, ArtifactError) as error:
            os.write(into, str(error).encode())
        finally:
            os._exit(0)
    os.close(into)
    with open(out, "rb") as answer:
        said = answer.read().decode()
    os.waitpid(child, 0)
    return said or None


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(attempt(*json.loads(line))), flush=True)
