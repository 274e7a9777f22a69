"""Work: a compressed set, chosen or trained by a method."""

from __future__ import annotations

from dataclasses import dataclass

from raydc.spec import catalog
from raydc.spec.code import check_code, code_of
from raydc.spec.entries import Method
from raydc.spec.facts import DataFacts
from raydc.spec.plan import SetJob
from raydc.spec.result import Row
from raydc.store.artifact import Store
from raydc.store.saved import OnProgress, Saved
from raydc.worker.work import Cost, Kind, Measure, Request
from raydc.worker.workbench import Workbench

SETS = Kind("sets", "sets", "steps")


@dataclass(frozen=True)
class SetWork:
    """A compressed set."""

    job: SetJob

    kind = SETS
    title = ""
    label_pass = None
    request = Request()

    @property
    def id(self) -> str:
        return self.job.id

    @property
    def needs(self) -> tuple[str, ...]:
        return self.job.scorers

    @property
    def method(self) -> Method:
        return catalog.METHODS[self.job.evaluation.method]

    @property
    def trains(self) -> bool:
        return self.method.trains

    @property
    def group(self) -> str:
        # Sets with the same scorer read its features or scores once.
        return "+".join(self.job.scorers)

    def cost(self, facts: DataFacts) -> Cost:
        """Number of steps of a method that trains; any other set counts as one step."""
        method = self.method
        if not method.trains:
            return Cost("sets", 1, _like(method.name, self.job.evaluation.ipc))
        steps = None if method.steps_key is None else self.job.evaluation.point.get(method.steps_key)
        return Cost(
            "steps", None if steps is None else int(steps), _like(method.name, self.job.evaluation.ipc)
        )

    @staticmethod
    def measured(row: Row, facts: DataFacts) -> Measure | None:
        name = str(row.get("images.method"))
        if row.get("images_seconds") is None or name not in catalog.METHODS:
            return None
        method = catalog.METHODS[name]
        steps = 1 if not method.trains else row.get(str(method.steps_key))
        if not steps:
            return None
        like = _like(name, row["images.ipc"])
        return Measure(str(row["set_id"]), like, float(steps), float(row["images_seconds"]))

    def is_made(self, store: Store) -> bool:
        return store.is_intact("set", self.id)

    def make(self, bench: Workbench, saved: Saved, progress: OnProgress) -> None:
        evaluation = self.job.evaluation
        check_code(evaluation.code, code_of(evaluation.point))
        images = evaluation.block("images")
        made = bench.compressor.make(self.job, saved, progress)
        with bench.store.draft("set") as draft:
            made.save(draft.folder, str(images["encoding"]), bench.dataset.class_names)
            draft.commit(
                self.id,
                images=dict(images.items()),
                seed=self.job.evaluation.image_seed,
                images_bytes=made.images_bytes,
                seconds=saved.seconds,
            )


def _like(method: str, ipc: int) -> str:
    return f"method {method} ipc {ipc}"
