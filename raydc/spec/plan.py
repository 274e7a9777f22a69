"""The plan of a study: what must be made, each thing once, and what waits for what.

trajectories -> compressed sets (where a scorer is needed) -> label passes -> evaluations
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from raydc.spec.evaluation import Evaluation, TeacherSpec
from raydc.spec.identity import Namer, Scoring, scoring


@dataclass(frozen=True)
class TrajectoryJob:
    """What a study needs of one network of a teacher."""

    id: str
    teacher: TeacherSpec
    index: int
    """Which of the teacher's networks."""
    epochs: tuple[int, ...] = ()
    """Checkpoints that are asked for; empty for a teacher that is not trained here."""
    scored: int = 0
    """Scores are asked for after each of the epochs 1 to this."""


@dataclass(frozen=True)
class SetJob:
    """A compressed set to be made."""

    id: str
    evaluation: Evaluation
    """Any evaluation that uses it; its `images` keys and image seed say how it is made."""
    scorers: tuple[str, ...] = ()
    """Trajectories that score or embed the images."""

    @property
    def scoring(self) -> Scoring | None:
        return scoring(self.evaluation)


@dataclass(frozen=True)
class LabelPass:
    """One forward of one checkpoint over one compressed set."""

    id: str
    compressed_set: str
    trajectory: str
    epoch: int | None
    teacher: TeacherSpec
    index: int
    """Which of the teacher's networks."""


@dataclass(frozen=True)
class Planned:
    """An evaluation with the names of everything that it waits for."""

    id: str
    evaluation: Evaluation
    compressed_set: str
    passes: tuple[LabelPass, ...] = ()


@dataclass(frozen=True)
class Plan:
    """Evaluations and everything that they wait for, each thing once."""

    evaluations: tuple[Planned, ...]
    trajectories: Mapping[str, TrajectoryJob]
    sets: Mapping[str, SetJob]
    passes: Mapping[str, LabelPass]

    @property
    def naive_passes(self) -> int:
        """Label passes if every evaluation had its images labelled anew."""
        return sum(len(planned.passes) for planned in self.evaluations)

    def without(self, finished: Collection[str]) -> Plan:
        """The plan of the evaluations whose ids are not in `finished`."""
        return assemble([p for p in self.evaluations if p.id not in finished], known=self)


def make_plan(evaluations: Iterable[Evaluation], dataset_id: str) -> Plan:
    """Name everything that `evaluations` need; equal evaluations collapse into one."""
    namer = Namer(dataset_id)
    planned: dict[str, Planned] = {}
    for evaluation in evaluations:
        compressed_set = namer.compressed_set(evaluation)
        epoch = evaluation.point.get("labels.teacher_epoch")
        passes = []
        for index, trajectory in enumerate(namer.label_trajectories(evaluation)):
            assert evaluation.teacher is not None
            name = namer.logits(compressed_set, trajectory, epoch)
            passes.append(LabelPass(name, compressed_set, trajectory, epoch, evaluation.teacher, index))
        name = namer.evaluation(evaluation)
        planned.setdefault(name, Planned(name, evaluation, compressed_set, tuple(passes)))
    return assemble(planned.values(), namer=namer)


def assemble(
    evaluations: Iterable[Planned], *, namer: Namer | None = None, known: Plan | None = None
) -> Plan:
    """The plan of `evaluations`; their sets are looked up in `known`, or named by `namer`."""
    evaluations = tuple(evaluations)
    sets: dict[str, SetJob] = {}
    for planned in evaluations:
        name = planned.compressed_set
        if name not in sets:
            if known is not None:
                sets[name] = known.sets[name]
            else:
                assert namer is not None
                sets[name] = _set_job(planned, namer)
    passes = {p.id: p for planned in evaluations for p in planned.passes}
    return Plan(evaluations, trajectory_jobs(sets.values(), passes.values()), sets, passes)


def trajectory_jobs(sets: Iterable[SetJob], passes: Iterable[LabelPass]) -> dict[str, TrajectoryJob]:
    """What some compressed sets and label passes ask of their teachers, by trajectory."""
    jobs: dict[str, TrajectoryJob] = {}
    for job in sets:
        need = job.scoring
        for index, trajectory in enumerate(job.scorers):
            assert need is not None
            if need.what == "scores":
                _ask(jobs, trajectory, need.scorer, index, scored=need.epoch or 0)
            else:
                _ask(jobs, trajectory, need.scorer, index, epoch=need.epoch)
    for p in passes:
        _ask(jobs, p.trajectory, p.teacher, p.index, epoch=p.epoch)
    return jobs


def _set_job(planned: Planned, namer: Namer) -> SetJob:
    need = scoring(planned.evaluation)
    scorers = [namer.trajectory(need.scorer, i) for i in range(need.networks)] if need else []
    return SetJob(planned.compressed_set, planned.evaluation, tuple(scorers))


def _ask(
    jobs: dict[str, TrajectoryJob],
    trajectory: str,
    teacher: TeacherSpec,
    index: int,
    *,
    epoch: int | None = None,
    scored: int = 0,
) -> None:
    """Add what is asked of a trajectory to its job."""
    job = jobs.get(trajectory) or TrajectoryJob(trajectory, teacher, index)
    epochs = {*job.epochs, epoch} if epoch is not None else {*job.epochs}
    jobs[trajectory] = replace(job, epochs=tuple(sorted(epochs)), scored=max(job.scored, scored))


def set_size(evaluation: Evaluation, classes: int) -> int:
    """Images of the compressed set of `evaluation`."""
    dropped = 1 if "images.drop_class" in evaluation.point else 0
    return evaluation.ipc * (classes - dropped)


STEP_OVERHEAD_IMAGES = 16
"""What a step costs beside its images, in images (measured on one CPU core, small ConvNets)."""


def student_cost(evaluation: Evaluation, classes: int, test_images: int) -> float:
    """Work of an evaluation in images trained on; a tested image counts a third."""
    recipe = evaluation.recipe
    images = set_size(evaluation, classes)
    step = min(images, recipe.batch_size) + STEP_OVERHEAD_IMAGES
    return recipe.total_steps(images) * step + test_images / 3
