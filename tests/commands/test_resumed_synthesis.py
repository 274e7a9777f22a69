"""A method that trains, from a plugin file: killed in the middle of a run, it goes on from its saved step."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from raydc.data.image_set import CompressedSet
from raydc.store.local import LocalStore
from raydc.tracking.ledger import read_rows
from tests.shell import Shell

pytestmark = [pytest.mark.command, pytest.mark.slow]

PLUGIN = '''
"""mean-match: images whose mean is drawn to that of real images of their class, by gradient steps."""
import os
import time

import numpy as np
import torch

from raydc.methods.pool import Made, Pool
from raydc.spec.catalog import METHODS, Key, Method, Whole


def make(pool: Pool, *, steps: int) -> Made:
    labels = np.repeat(pool.classes, pool.ipc)
    images = torch.from_numpy(pool.generator.standard_normal((len(labels), *pool.shape), np.float32))
    images.requires_grad_()
    optimizer = torch.optim.Adam([images], lr=0.05)
    for step in pool.steps(steps, images=images, optimizer=optimizer):
        with open(os.environ["STEPS_DONE"], "a") as file:
            file.write(f"{step}\\n")
        time.sleep(float(os.environ["STEP_SECONDS"]))
        rows = np.stack([pool.generator.choice(pool.rows_of(label), 8) for label in labels])
        real = torch.from_numpy(pool.take(rows.ravel())).float().div(255).unflatten(0, rows.shape)
        loss = (images - real.mean(1)).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return Made(images.detach().numpy(), labels, space=pool.space)


METHODS.add(
    Method(
        "mean-match",
        "mean_match:make",
        "images drawn to the means of real ones",
        keys=(Key("images.steps", Whole(1), "gradient steps", 200),),
        seeded=True,
        trains=True,
        steps_key="images.steps",
    )
)
'''
STEPS = 200
STEP_SECONDS = 0.02
SAVE_SECONDS = 0.5
SETTINGS = ("grid={}", "seeds=1", "base.images={method: mean-match, ipc: 1}", "base.train.steps=5")
SEARCH = """
search:
  optuna:
    trials: 4
    winner_seeds: 0
    space:
      images.method: {categorical: [random, mean-match]}
      train.lr: {categorical: [0.01, 0.05]}
    enqueue:
      - {images.method: mean-match, train.lr: 0.01}
      - {images.method: random, train.lr: 0.01}
      - {images.method: random, train.lr: 0.05}
      - {images.method: mean-match, train.lr: 0.05}
"""


class Synthesis:
    """Runs of a study whose set is trained, in a folder and a store of their own."""

    def __init__(self, shell: Shell) -> None:
        self.shell = shell
        (shell.folder / "mean_match.py").write_text(PLUGIN)
        self.steps_done = shell.folder / "steps.txt"
        shell.environment |= {
            "STEPS_DONE": str(self.steps_done),
            "STEP_SECONDS": str(STEP_SECONDS),
            "RAYDC_SAVE_SECONDS": str(SAVE_SECONDS),
        }
        options = [option for setting in SETTINGS for option in ("--set", setting)]
        self.arguments = [
            "--plugin",
            "mean_match.py",
            "run",
            "tiny.yaml",
            "--out",
            "out",
            "--no-report",
            *options,
        ]

    def done(self) -> list[int]:
        """Steps in the order in which they were taken, repeated ones too."""
        return [int(line) for line in self.steps_done.read_text().split()] if self.steps_done.exists() else []

    def run_until(self, steps: int) -> None:
        """Start a run, and kill it with all its processes after `steps` steps."""
        process = subprocess.Popen(
            [sys.executable, "-m", "raydc", *self.arguments],
            cwd=self.shell.folder,
            env={**os.environ, **self.shell.environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            deadline = time.monotonic() + 300
            while len(self.done()) < steps:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
        finally:
            for pid in _session(process.pid):
                os.kill(pid, signal.SIGKILL)
            process.wait()

    def made(self) -> CompressedSet:
        """The set that was trained, from the store."""
        store = LocalStore(Path(self.shell.environment["RAYDC_STORE"]))
        found = [a for name in store.names("set") if (a := store.find("set", name)) is not None]
        (artifact,) = [a for a in found if a.meta["images"]["method"] == "mean-match"]
        assert store.names("progress") == []
        return CompressedSet.load(artifact.folder)


def _session(leader: int) -> list[int]:
    """Processes of a session, its leader first."""
    found = [leader]
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            session = int((folder / "stat").read_text().rpartition(")")[2].split()[3])
        except (FileNotFoundError, ProcessLookupError):
            continue
        if session == leader and int(folder.name) != leader:
            found.append(int(folder.name))
    return found


@pytest.fixture
def synthesis(make_shell: Callable[[], Shell]) -> Callable[[], Synthesis]:
    return lambda: Synthesis(make_shell())


def repeated(done: list[int]) -> list[int]:
    """Steps that were taken more than once."""
    return sorted({step for step in done if done.count(step) > 1})


def test_a_killed_synthesis_goes_on_and_ends_as_an_unbroken_one(synthesis: Callable[[], Synthesis]) -> None:
    whole, broken = synthesis(), synthesis()
    said = whole.shell.process(*whole.arguments).stdout
    assert whole.done() == list(range(STEPS))
    assert f"sets: {STEPS} steps" in said
    assert whole.made().space == "normalised"
    broken.run_until(110)
    after = len(broken.done())
    assert after < STEPS
    said = broken.shell.process(*broken.arguments).stdout
    assert "1 of 1 evaluations finished" in said
    done = broken.done()
    assert sorted(set(done)) == list(range(STEPS))
    # It went on after a saved step, of which one at least was there, and repeated one interval at most.
    assert done[after] > 0
    assert len(repeated(done)) <= SAVE_SECONDS / STEP_SECONDS + 1
    np.testing.assert_array_equal(whole.made().images, broken.made().images)
    assert np.isfinite(whole.made().images).all()
    rows = [next(iter(read_rows(one.shell.folder / "out").values())) for one in (whole, broken)]
    assert rows[0]["val_acc"] == rows[1]["val_acc"]


def test_the_plan_prices_a_set_that_trains_once_one_was_trained(synthesis: Callable[[], Synthesis]) -> None:
    one = synthesis()
    one.shell.environment["STEP_SECONDS"] = "0"
    before = one.shell.process(
        *one.arguments[:2], "plan", *one.arguments[3:4], "--out", "out", *one.arguments[7:]
    )
    assert "unknown" in before.stdout
    one.shell.process(*one.arguments)
    more = ("--set", "base.images.steps=400", "--json")
    planned = one.shell.process(
        *one.arguments[:2], "plan", "tiny.yaml", "--out", "out", *one.arguments[7:], *more
    ).stdout
    assert re.search(r"teachers [^,]*, sets [\d.]+ \w+, students", planned), planned


def test_a_search_trains_sets_outside_the_time_limit_of_students(synthesis: Callable[[], Synthesis]) -> None:
    one = synthesis()
    (one.shell.folder / "tiny.yaml").write_text(
        "name: tiny\ndataset: digits\nseeds: 1\n"
        "base:\n  images: {method: random, ipc: 1}\n  student: {arch: convnet-d2-w8}\n"
        "  labels: {kind: hard}\n  train: {recipe: label-worth, steps: 5, augment: none, lr: 0.05}\n"
        # A set takes more than 40 s.
        "resources: {workers: 2, retries: 1, evaluation_timeout_seconds: 30}\n" + SEARCH
    )
    one.shell.environment["STEP_SECONDS"] = "0.2"
    one.arguments = one.arguments[:7]
    one.run_until(60)
    # Students of the points whose sets need no training did not wait.
    finished = read_rows(one.shell.folder / "out").values()
    assert {row["images.method"] for row in finished} <= {"random"}
    said = one.shell.process(*one.arguments).stdout
    assert "4 of 4 points told: 4 complete" in said
    rows = read_rows(one.shell.folder / "out").values()
    assert [row["attempts"] for row in rows] == [1] * 4
    trained = [row["finished_at"] for row in rows if row["images.method"] == "mean-match"]
    chosen = [row["finished_at"] for row in rows if row["images.method"] == "random"]
    assert max(chosen) < min(trained)
    assert len(one.done()) - STEPS <= SAVE_SECONDS / 0.2 + 1
    one.made()
