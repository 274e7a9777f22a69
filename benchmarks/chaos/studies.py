"""The experiments: random faults by seed, a node that dies, a driver that is killed repeatedly."""

from __future__ import annotations

import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.chaos.bed import Bed, StuckError
from benchmarks.chaos.check import check, finished_rows, in_flight, mlflow_runs, read_starts
from benchmarks.chaos.faults import EARLY_SECONDS, FAULTS, Fault, inflict, schedule
from benchmarks.mlflow_server import Server
from benchmarks.record import publish

JOIN_AFTER_SECONDS = 5.0
"""Time after which a killed worker node is replaced."""
MOST_OVER_CALM = 1.5
"""Most wall time of a study whose worker node is replaced halfway, relative to one without faults."""
GONE_SECONDS = 30.0
"""Time within which the processes of a killed driver must have ended."""


@dataclass(frozen=True)
class Calm:
    """A study without faults."""

    wall_seconds: float
    accuracies: Mapping[str, float]
    """Test accuracy by evaluation."""


@contextmanager
def _server(out: Path) -> Iterator[Server]:
    """An MLflow server with its own database."""
    out.mkdir(parents=True, exist_ok=True)
    server = Server(Path(tempfile.mkdtemp(prefix="mlflow-", dir=out)))
    try:
        server.start()
        server.wait()
        yield server
    finally:
        server.stop()


@contextmanager
def _bed(out: Path, name: str, evaluations: int, **options: Any) -> Iterator[Bed]:
    """A study in a new folder; an earlier one is removed."""
    shutil.rmtree(out / name, ignore_errors=True)
    bed = Bed(out / name, name, evaluations, **options)
    try:
        yield bed
    finally:
        bed.close()


def _accuracies(bed: Bed) -> dict[str, float]:
    rows, _ = finished_rows(bed.out)
    found = {row["evaluation_id"]: row["test_acc"] for row in rows}
    if len(found) != bed.evaluations:
        raise SystemExit(f"the calm study finished {len(found)} of {bed.evaluations}; see {bed.folder}")
    return found


def _tell(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


# --- random faults ----------------------------------------------------------------------------


class _Kept:
    """Results of the studies of one setting, one line each: the one without faults, and those by seed."""

    def __init__(self, path: Path, **setting: Any) -> None:
        self._path = path
        self._setting = setting
        self.calm: Calm | None = None
        self.rows: dict[int, dict[str, Any]] = {}
        for line in path.read_text().splitlines() if path.exists() else ():
            known = json.loads(line)
            if known.pop("setting") == setting:
                self._take(known)

    def _take(self, known: dict[str, Any]) -> None:
        if "calm" in known:
            self.calm = Calm(**known["calm"])
        else:
            self.rows[known["seed"]] = known

    def add(self, known: dict[str, Any]) -> None:
        """Keep one that is over."""
        with self._path.open("a") as file:
            file.write(json.dumps({"setting": self._setting, **known}) + "\n")
        self._take(known)
        _tell(str({name: value for name, value in known.items() if name != "calm"}))


def seeds(out: Path, numbers: Sequence[int], *, faults: int, evaluations: int, **options: Any) -> bool:
    """A study for each seed that has none yet; whether all promises were kept."""
    kept = _Kept(out / "rows.jsonl", evaluations=evaluations, faults=faults, steps=options["steps"])
    if missing := [seed for seed in numbers if seed not in kept.rows]:
        with _server(out) as server:
            surroundings = {**options, "server": server, "on_cluster": True}
            if kept.calm is None:
                with _bed(out, "calm", evaluations, **surroundings) as bed:
                    bed.begin()
                    kept.add({"calm": asdict(Calm(bed.finish(), _accuracies(bed)))})
            assert kept.calm is not None
            for seed in missing:
                plan = schedule(seed, evaluations, list(FAULTS), faults)
                with _bed(out, f"seed-{seed}", evaluations, **surroundings) as bed:
                    kept.add({"seed": seed, **tormented(bed, plan, kept.calm)})
    assert kept.calm is not None
    chosen = [kept.rows[seed] for seed in numbers]
    happened = Counter(kind for row in chosen for kind in row["faults"].split(", "))
    publish(
        "chaos",
        chosen,
        "cpu",
        evaluations=evaluations,
        calm_wall_seconds=round(kept.calm.wall_seconds, 1),
        faults=dict(sorted(happened.items())),
        missed=sum(bool(kind) for row in chosen for kind in row["missed"].split(", ")),
        lost=sum(row["lost"] for row in chosen),
        duplicates=sum(row["duplicates"] for row in chosen),
        hangs=sum(row["hangs"] for row in chosen),
    )
    return all(row["kept"] for row in chosen)


def tormented(bed: Bed, plan: Sequence[Fault], calm: Calm) -> dict[str, Any]:
    """Run a study under the faults of `plan`; what happened and what was counted."""
    happened, missed, stuck = [], [], None
    bed.begin()
    try:
        for fault in plan:
            (happened if inflict(fault, bed) else missed).append(fault.kind)
        wall = bed.finish()
    except StuckError as reason:
        stuck, wall = str(reason), time.monotonic() - bed.driver.starts[0]
        print(f"{bed.folder}: {reason}", file=sys.stderr, flush=True)
        bed.dump()
    assert bed.server is not None
    bed.server.wait()
    starts = read_starts(bed.starts)
    verdict = check(bed.out, calm.accuracies, starts, bed.seen, mlflow_runs(bed.server.uri, bed.folder.name))
    return {
        "faults": ", ".join(happened),
        "missed": ", ".join(missed),
        "wall seconds": round(wall, 1),
        "resumes": len(bed.driver.starts) - 1,
        "ended with": " ".join(map(str, bed.codes)),
        **asdict(verdict),
        "hangs": int(stuck is not None),
        "kept": verdict.kept and stuck is None,
    }


# --- a node that dies -------------------------------------------------------------------------


def two_nodes(out: Path, *, evaluations: int, **options: Any) -> bool:
    """Run the same study twice on two nodes, once with the worker node killed and replaced halfway."""

    def lose(bed: Bed) -> None:
        assert bed.cluster is not None
        bed.cluster("lose")
        time.sleep(JOIN_AFTER_SECONDS)
        bed.cluster("join")

    rows: list[dict[str, Any]] = []
    calm: Calm | None = None
    with _server(out) as server:
        for name, act in (("calm", lambda bed: None), ("node killed", lose)):
            folder = f"two-nodes-{name.replace(' ', '-')}"
            with _bed(out, folder, evaluations, server=server, on_cluster=True, **options) as bed:
                bed.begin()
                halfway = bed.reach(evaluations // 2)
                students = bed.students_by_node()
                if halfway:
                    act(bed)
                wall = bed.finish()
                calm = calm or Calm(wall, _accuracies(bed))
                starts = read_starts(bed.starts)
                recorded = mlflow_runs(server.uri, folder)
                verdict = check(bed.out, calm.accuracies, starts, bed.seen, recorded)
            trained = Counter(start.process for start in starts)
            on = {f"trained on the {n}": sum(trained[pid] for pid in pids) for n, pids in students.items()}
            over_calm = wall / calm.wall_seconds
            rows.append(
                {
                    "study": name,
                    "wall seconds": round(wall, 1),
                    "over calm": round(over_calm, 2),
                    **on,
                    "trained on the new node": verdict.trainings - sum(on.values()),
                    "driver starts": len(bed.driver.starts),
                    "finished": evaluations - verdict.lost,
                    "MLflow runs": sum(recorded.values()),
                    **asdict(verdict),
                    "kept": verdict.kept and all(students.values()) and over_calm <= MOST_OVER_CALM,
                }
            )
    publish("two-nodes", rows, "cpu", evaluations=evaluations, joins_after_seconds=JOIN_AFTER_SECONDS)
    return all(row["kept"] for row in rows)


# --- a driver killed repeatedly ---------------------------------------------------------------


def driver_kills(out: Path, kills: int, *, seed: int, evaluations: int, **options: Any) -> bool:
    """Kill the driver, and with it the Ray that it started, at random times of one study."""
    chance = random.Random(seed)
    moments = sorted(max(0, chance.randrange(-evaluations // 4, evaluations)) for _ in range(kills))
    with _bed(out, "undisturbed", evaluations, **options) as bed:
        bed.begin()
        calm = Calm(bed.finish(), _accuracies(bed))
    with _bed(out, "driver-kills", evaluations, **options) as bed:
        bed.begin()
        at = []
        for after in moments:
            if not bed.reach(after):
                break
            time.sleep(chance.random() * (1.0 if after else EARLY_SECONDS))
            bed.kill_driver()
            at.append((len(bed.seen), time.monotonic() - bed.driver.starts[-1]))
            bed.resume()
        wall = bed.finish()
        starts = read_starts(bed.starts)
        recorded = mlflow_runs(f"sqlite:///{bed.out}/mlflow.db", "driver-kills")
        verdict = check(bed.out, calm.accuracies, starts, bed.seen, recorded)
        bed.wait(lambda: not bed.left_over(), GONE_SECONDS)
        left_over = len(bed.left_over())
        flying = in_flight(starts, bed.driver.starts, bed.seen)
    rows = [
        {"kill": number, "finished": finished, "seconds after its start": round(seconds, 1), "in flight": f}
        for number, ((finished, seconds), f) in enumerate(zip(at, flying, strict=False), 1)
    ]
    expected = evaluations + sum(flying)
    publish(
        "driver-kills",
        rows,
        "cpu",
        evaluations=evaluations,
        kills=len(at),
        wall_seconds=round(wall, 1),
        calm_wall_seconds=round(calm.wall_seconds, 1),
        in_flight=sum(flying),
        trainings_expected=expected,
        **asdict(verdict),
        processes_left_over=left_over,
    )
    return verdict.kept and verdict.trainings == expected and len(at) == kills and not left_over
