"""Faults that can happen to a study, and a schedule of them drawn from a seed.

A schedule defines the fault, the number of finished evaluations before it, the delay after that, and the
victim: so it is the same on a fast machine and on a slow one.
"""

from __future__ import annotations

import random
import shutil
import signal
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.chaos.bed import STUDENTS, TEACHERS, Bed
from benchmarks.processes import kill
from raydc.store.artifact import MANIFEST
from raydc.tracking.ledger import FILE

EARLY_SECONDS = 15.0
"""Faults before the first result happen within this time."""
LATEST = 0.85
"""Fraction of finished evaluations after which no fault happens."""
APPEARS_SECONDS = 60.0
"""Longest wait for a victim to appear."""
AWAY_SECONDS = 12.0
"""Longest time for which a server or a node is down."""


@dataclass(frozen=True)
class Fault:
    """One fault."""

    kind: str
    after: int
    """Number of finished evaluations before it."""
    delay: float
    """Seconds after that."""
    draw: float
    """Random number in [0, 1) that selects the victim, the duration or the bit."""


def schedule(seed: int, evaluations: int, kinds: Sequence[str], count: int) -> list[Fault]:
    """`count` different faults of one seed, in the order in which they happen."""
    chance = random.Random(seed)
    faults = []
    for kind in chance.sample(list(kinds), count):
        # One in six happens before the first result; teachers run only then.
        after = max(0, chance.randrange(-evaluations // 6, int(LATEST * evaluations)))
        if kind in NEEDS_ROWS:
            after = max(after, 1)
        if kind == "teachers killed":
            after = 0
        delay = chance.random() * (1.0 if after or kind == "teachers killed" else EARLY_SECONDS)
        faults.append(Fault(kind, after, delay, chance.random()))
    return sorted(faults, key=lambda fault: (fault.after, fault.kind != "teachers killed", fault.delay))


def inflict(fault: Fault, bed: Bed) -> bool:
    """Inject a fault; returns False if there was no victim."""
    if not bed.reach(fault.after):
        return False
    time.sleep(fault.delay)
    return FAULTS[fault.kind](bed, fault.draw)


# --- workers ----------------------------------------------------------------------------------


def _student(bed: Bed, draw: float, what: int) -> bool:
    bed.wait(lambda: bed.ended() or bool(bed.named(STUDENTS)), APPEARS_SECONDS)
    there = bed.named(STUDENTS)
    if there:
        there[int(draw * len(there))].send_signal(what)
    return bool(there)


def student_killed(bed: Bed, draw: float) -> bool:
    """SIGKILL a student's worker."""
    return _student(bed, draw, signal.SIGKILL)


def student_stopped(bed: Bed, draw: float) -> bool:
    """SIGSTOP a student's worker, which hangs from then on."""
    return _student(bed, draw, signal.SIGSTOP)


def teachers_killed(bed: Bed, draw: float) -> bool:
    """SIGKILL every replica of the teacher, some seconds after the first has started."""
    bed.wait(lambda: bed.ended() or bool(bed.named(TEACHERS)), APPEARS_SECONDS)
    time.sleep(draw)
    there = bed.named(TEACHERS)
    kill(there)
    return bool(there)


# --- machines ---------------------------------------------------------------------------------


def driver_killed(bed: Bed, draw: float) -> bool:
    """SIGKILL the driver, and restart it."""
    del draw
    bed.kill_driver()
    bed.resume()
    return True


def node_lost(bed: Bed, draw: float) -> bool:
    """Kill the worker node with all its processes; another one joins."""
    assert bed.cluster is not None
    bed.family()
    bed.cluster("lose")
    time.sleep(draw * AWAY_SECONDS)
    bed.cluster("join")
    return True


def cluster_lost(bed: Bed, draw: float) -> bool:
    """Kill both nodes, including the head; the driver ends and resumes on a new cluster."""
    del draw
    assert bed.cluster is not None
    bed.family()
    bed.cluster.lose_all()
    bed.wait(bed.ended)
    bed.note_end()  # exit code 2 if the driver was just starting: there is no cluster
    bed.cluster("start")
    bed.resume()
    return True


# --- MLflow -----------------------------------------------------------------------------------


def mlflow_away(bed: Bed, draw: float) -> bool:
    """Stop the MLflow server for some seconds."""
    assert bed.server is not None
    bed.server.stop()
    time.sleep(draw * AWAY_SECONDS)
    bed.server.start()
    return True


def mlflow_away_at_start(bed: Bed, draw: float) -> bool:
    """Kill the driver and restart it while the MLflow server is down."""
    assert bed.server is not None
    bed.server.stop()
    bed.kill_driver()
    bed.resume()
    time.sleep((1 + draw) * AWAY_SECONDS)
    bed.server.start()
    return True


# --- files ------------------------------------------------------------------------------------


def _artifacts(bed: Bed) -> list[Path]:
    return sorted(path.parent for path in bed.store.glob(f"*/*/{MANIFEST}"))


def _between_runs(damage: Callable[[Bed, float], bool]) -> Callable[[Bed, float], bool]:
    """Damage files while no driver runs, because a running process has already checked and mapped its
    files."""

    def inflicted(bed: Bed, draw: float) -> bool:
        bed.kill_driver()
        done = damage(bed, draw)
        bed.resume()
        return done

    inflicted.__doc__ = damage.__doc__
    return inflicted


def _damaged_file(bed: Bed, draw: float) -> Path | None:
    """A random file of an artifact; each kind of artifact is equally likely."""
    by_kind: dict[str, list[Path]] = {}
    for folder in _artifacts(bed):
        files = [path for path in sorted(folder.iterdir()) if path.stat().st_size]
        by_kind.setdefault(folder.parent.name, []).extend(files)
    if not by_kind:
        return None
    chance = random.Random(draw)
    return chance.choice(by_kind[chance.choice(sorted(by_kind))])


@_between_runs
def bit_flipped(bed: Bed, draw: float) -> bool:
    """Flip a bit of an artifact's file."""
    path = _damaged_file(bed, draw)
    if path is None:
        return False
    content = bytearray(path.read_bytes())
    content[int(draw * len(content))] ^= 1 << int(draw * 8)
    path.write_bytes(content)
    return True


@_between_runs
def file_truncated(bed: Bed, draw: float) -> bool:
    """Truncate an artifact's file."""
    path = _damaged_file(bed, draw)
    if path is None:
        return False
    with path.open("rb+") as file:
        file.truncate(int(draw * path.stat().st_size))
    return True


@_between_runs
def draft_left(bed: Bed, draw: float) -> bool:
    """Leave a draft and a folder without a manifest, as a process that died while writing would."""
    there = _artifacts(bed)
    if not there:
        return False
    folder = there[int(draw * len(there))]
    shutil.copytree(folder, folder.with_name(f".draft-{uuid.uuid4().hex}"))
    (folder / MANIFEST).unlink()
    return True


@_between_runs
def line_torn(bed: Bed, draw: float) -> bool:
    """End the ledger with half a line."""
    path = bed.out / FILE
    lines = path.read_bytes().splitlines() if path.exists() else []
    if not lines:
        return False
    with path.open("ab") as file:
        file.write(lines[-1][: 1 + int(draw * (len(lines[-1]) - 2))])
    return True


FAULTS: dict[str, Callable[[Bed, float], bool]] = {
    "student killed": student_killed,
    "student stopped": student_stopped,
    "teachers killed": teachers_killed,
    "driver killed": driver_killed,
    "node lost": node_lost,
    "cluster lost": cluster_lost,
    "MLflow away": mlflow_away,
    "MLflow away at start": mlflow_away_at_start,
    "bit flipped": bit_flipped,
    "file truncated": file_truncated,
    "draft left": draft_left,
    "line torn": line_torn,
}
NEEDS_ROWS = ("MLflow away", "MLflow away at start", "line torn")
"""Faults that need results: only a study with results resumes without MLflow, and only a ledger with lines
can be torn."""
