"""Work: the prerequisites of evaluations, in pieces that can be made, checkpointed and resumed.

    trajectories -> compressed sets (where a scorer is needed) -> label passes -> learned labels

A piece of work is made once and is then in the store. The modules that make pieces (raydc.worker.making in
one process, raydc.orchestration.prerequisites on Ray) use only this protocol: a new kind of work is a new
class and a line in raydc.worker.planned_work.
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
    """A kind of work; each kind is a stage of a run."""

    name: str
    """Name of the stage, such as `sets`."""
    unit: str
    """Unit of its steps if no piece trains, such as `sets`."""
    unit_trained: str
    """Unit of its steps if pieces train, such as `epochs`."""


class Cores(Enum):
    """How many CPU cores a piece of work uses."""

    STUDENT = "student"
    """As many as a student (resources.threads), so that the result does not depend on the machine."""
    SHARE = "share"
    """An equal share of the machine's cores among the pieces that are made at the same time."""


@dataclass(frozen=True)
class Request:
    """Resources that a piece of work requests."""

    cores: Cores = Cores.STUDENT
    gpu: bool = True
    """Whether it uses the same share of a GPU as a student (resources.gpu_share), if GPUs are available."""
    memory_bytes: int | None = None
    """Main memory to request from Ray; None requests none."""
    together: bool = False
    """Whether several processes can make it together (resources.teacher_workers); each calls `make`."""


@dataclass(frozen=True)
class Cost:
    """Estimated cost of a piece of work, for the plan."""

    unit: str
    """Unit of `steps`, such as `epochs`."""
    steps: int | None
    """Number of steps; None if it is not known in advance."""
    like: str
    """Key of similar work: steps of equal `like` and `scale` take equal time."""
    scale: float = 1.0
    """Size of a step, such as the number of images that it processes."""


@dataclass(frozen=True)
class Measure:
    """Measured cost of a piece of work, from a result row."""

    id: str
    like: str
    """As in `Cost`."""
    size: float
    """Number of steps times their scale."""
    seconds: float


class Work(Protocol):
    """A piece of work; it is small and can be sent between processes."""

    @property
    def id(self) -> str:
        """The name of what is made."""

    @property
    def kind(self) -> Kind: ...

    @property
    def title(self) -> str:
        """Its name in messages, such as `the teacher 'a'`; empty if its errors need no name."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Ids of the work that must be made first."""

    @property
    def trains(self) -> bool:
        """Whether it is long: it reports steps and saves its state; short work is made in groups."""

    @property
    def label_pass(self) -> LabelPass | None:
        """The label pass to request from the label service (raydc.worker.label_service); None for work that
        is made by a process of its own."""

    @property
    def group(self) -> str:
        """Work with equal groups reads the same inputs, and is made together or in sequence."""

    @property
    def request(self) -> Request: ...

    def cost(self, facts: DataFacts) -> Cost:
        """Estimated cost on a dataset."""

    @staticmethod
    def measured(row: Row, facts: DataFacts) -> Measure | None:
        """Measured cost of such work for an earlier evaluation; None if its row does not record it."""

    def is_made(self, store: Store) -> bool:
        """Whether its result is in the store."""

    def make(self, bench: Workbench, saved: Saved, progress: OnProgress) -> None:
        """Make it, resuming from `saved`; what it needs must be in the store.

        Calls `progress` with (steps done, steps in total). Raises a `RaydcError` if it cannot be made.
        """
