"""Work: what evaluations wait for, in pieces that can be made, saved on the way and gone on with.

    trajectories -> compressed sets (where a scorer is needed) -> label passes -> learned labels

A piece of work is made once and then is in the store. What makes pieces (raydc.worker.making in one process,
raydc.orchestration.prerequisites on Ray) knows this protocol alone: another kind of work is another class and
a line in raydc.worker.planned_work.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from raydc.spec.facts import DataFacts
from raydc.spec.plan import LabelPass
from raydc.spec.result import Row
from raydc.store.artifact import Store
from raydc.store.saved import OnProgress, Saved
from raydc.worker.workbench import Workbench


@dataclass(frozen=True)
class Kind:
    """A kind of work, which is a stage of a run."""

    name: str
    """Such as `sets`."""
    unit: str
    """What its steps are where no piece trains, such as `sets`."""
    unit_trained: str
    """What its steps are where pieces train, such as `epochs`."""


class Cores(Enum):
    """How many cores a piece of work takes."""

    STUDENT = "student"
    """As many as a student (resources.threads): what is made does not depend on the machine."""
    SHARE = "share"
    """Its share of the machine, of which the pieces that are made at a time take equal parts."""


@dataclass(frozen=True)
class Request:
    """What a piece of work asks of the machine."""

    cores: Cores = Cores.STUDENT
    gpu: bool = True
    """Whether it takes the part of a GPU that a student takes (resources.gpu_share), where there is one."""
    memory_bytes: int | None = None
    """Main memory; None: Ray is asked for none."""
    together: bool = False
    """Whether several processes may make it together (resources.teacher_workers); each calls `make`."""


@dataclass(frozen=True)
class Cost:
    """What a piece of work takes, for the plan."""

    unit: str
    """What is counted, such as `epochs`."""
    steps: int | None
    """How many it takes; None where that is not known before it is made."""
    like: str
    """Work that is like it: a step of equal `scale` takes equal time."""
    scale: float = 1.0
    """Size of a step, such as the images that it sees."""


@dataclass(frozen=True)
class Measure:
    """What a piece of work took, as a result row tells it."""

    id: str
    like: str
    """As in `Cost`."""
    size: float
    """Steps times their scale."""
    seconds: float


class Work(Protocol):
    """A piece of work; it is small, and sent between processes."""

    @property
    def id(self) -> str:
        """The name of what is made."""

    @property
    def kind(self) -> Kind: ...

    @property
    def title(self) -> str:
        """How messages name it, such as `the teacher 'a'`; empty where its reasons need no name."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Ids of the work that must be made before."""

    @property
    def trains(self) -> bool:
        """Whether it is long: it reports steps and is saved on the way; others are made several at a time."""

    @property
    def label_pass(self) -> LabelPass | None:
        """What teachers are asked for, who label for many clients at once (raydc.worker.label_service); None
        for work that is made by a process of its own."""

    @property
    def group(self) -> str:
        """Work of equal groups reads the same things, and is made together or in turn."""

    @property
    def request(self) -> Request: ...

    def cost(self, facts: DataFacts) -> Cost:
        """What it takes on a dataset."""

    @staticmethod
    def measured(row: Row, facts: DataFacts) -> Measure | None:
        """What such work took for an earlier evaluation, by its result; None if that does not tell."""

    def is_made(self, store: Store) -> bool:
        """Whether what it makes is in the store."""

    def make(self, bench: Workbench, saved: Saved, progress: OnProgress) -> None:
        """Make it, going on from `saved`; what it needs must be in the store.

        Calls `progress` with (steps done, steps in total). Raises raydc's own errors where it cannot be made.
        """
