"""Work: the networks of a teacher, trained here or trained elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from raydc.spec.code import check_code, code_of_training
from raydc.spec.facts import DataFacts
from raydc.spec.plan import TrajectoryJob
from raydc.spec.result import Row
from raydc.store.artifact import Store
from raydc.store.saved import OnProgress, Saved
from raydc.teachers.checkpoint import not_stored, store_given
from raydc.teachers.expert import missing, train_trajectory
from raydc.training.group import Group
from raydc.worker.work import Cores, Cost, Kind, Measure, Request
from raydc.worker.workbench import Workbench

TEACHERS = Kind("teachers", "epochs", "epochs")


@dataclass(frozen=True)
class TrajectoryWork:
    """Checkpoints, and scores, of one network of a teacher."""

    job: TrajectoryJob

    kind = TEACHERS
    needs: ClassVar[tuple[str, ...]] = ()
    trains = True
    label_pass = None

    @property
    def id(self) -> str:
        return self.job.id

    @property
    def title(self) -> str:
        return f"the teacher {self.job.teacher.name!r}"

    @property
    def group(self) -> str:
        return self.id

    @property
    def request(self) -> Request:
        return Request(Cores.SHARE, together=self.job.teacher.trained_here)

    @property
    def epochs(self) -> int:
        """The last epoch that is requested."""
        return max([*self.job.epochs, self.job.scored, 0])

    def cost(self, facts: DataFacts) -> Cost:
        """An epoch trains on the train part and tests; a tested image counts as a third of a trained one."""
        images = sum(facts.train_counts) + (facts.test_images + facts.val_images) / 3
        return Cost("epochs", self.epochs, f"training {self.job.teacher.arch}", images)

    @staticmethod
    def measured(row: Row, facts: DataFacts) -> Measure | None:
        """None: rows record the time of students, and teachers with the same network take the same time."""
        del row, facts
        return None

    def is_made(self, store: Store) -> bool:
        if self.job.teacher.trained_here:
            return not any(missing(self.job, store))
        return not not_stored(self.job, store)

    def make(self, bench: Workbench, saved: Saved, progress: OnProgress) -> None:
        teacher = self.job.teacher
        check_code(teacher.code, code_of_training(teacher.arch, teacher.train))
        if self.job.teacher.trained_here:
            group = Group.here()
            train_trajectory(bench.dataset, self.job, bench.store, bench.device, saved, progress, group)
        else:
            store_given(self.job, bench.dataset, bench.store, bench.device)
