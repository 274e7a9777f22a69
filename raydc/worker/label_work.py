"""Work: one forward of a teacher's checkpoint over a compressed set, or over views of it."""

from __future__ import annotations

from dataclasses import dataclass

from raydc.spec import catalog
from raydc.spec.facts import DataFacts
from raydc.spec.plan import LabelPass
from raydc.spec.result import Row
from raydc.store.artifact import Store
from raydc.store.saved import OnProgress, Saved
from raydc.worker.relabeller import labelled
from raydc.worker.work import Cost, Kind, Measure, Request
from raydc.worker.workbench import Workbench

LABELS = Kind("labels", "label passes", "label passes")


@dataclass(frozen=True)
class LabelWork:
    """The logits of a label pass."""

    label_pass: LabelPass
    images: int
    """Number of images in the compressed set."""

    kind = LABELS
    title = "its label pass"
    trains = False
    request = Request()

    @property
    def id(self) -> str:
        return self.label_pass.id

    @property
    def needs(self) -> tuple[str, ...]:
        return self.label_pass.trajectory, self.label_pass.compressed_set

    @property
    def group(self) -> str:
        return f"{self.label_pass.trajectory}-{self.label_pass.epoch or 0:05d}"

    def cost(self, facts: DataFacts) -> Cost:
        images = self.label_pass.forwards(self.images)
        return Cost("images", images, f"labelling {self.label_pass.teacher.arch}")

    @staticmethod
    def measured(row: Row, facts: DataFacts) -> Measure | None:
        """Cost of labels of whole images; a row does not record how many views were labelled."""
        kind = str(row.get("labels.kind"))
        if not row.get("labels_seconds") or kind not in catalog.LABELS:
            return None
        needs = {need.what for need in catalog.LABELS[kind].needs}
        if "logits" not in needs or "learned" in needs:
            return None
        passes = len(str(row["labels_id"]).split("+"))
        images = row["images.ipc"] * facts.classes * passes
        like = f"labelling {row.get('teacher.arch')}"
        return Measure(str(row["labels_id"]), like, float(images), float(row["labels_seconds"]))

    def is_made(self, store: Store) -> bool:
        return labelled(self.label_pass, store)

    def make(self, bench: Workbench, saved: Saved, progress: OnProgress) -> None:
        # A pass over views is stored in segments, so nothing else is saved.
        del saved
        bench.ensure(self.label_pass)
        progress(1, 1)
