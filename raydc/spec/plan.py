"""The plan of a study: everything that must be made, each item once, and its dependencies.

trajectories -> compressed sets (where a scorer is needed) -> label passes -> learned labels -> evaluations
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from raydc.spec.evaluation import Evaluation, Recipe, TeacherSpec
from raydc.spec.identity import IdBuilder, Scoring, scoring


@dataclass(frozen=True)
class TrajectoryJob:
    """What a study needs from one network of a teacher."""

    id: str
    teacher: TeacherSpec
    index: int
    """Position of the network among the teacher's networks, from 0."""
    epochs: tuple[int, ...] = ()
    """Epochs whose checkpoints are needed; empty for a teacher that the study does not train."""
    scored: int = 0
    """Last epoch after which scores are needed; scores are recorded after each epoch from 1 to this one."""


@dataclass(frozen=True)
class SetJob:
    """A compressed set to be made."""

    id: str
    evaluation: Evaluation
    """Any evaluation that uses the set; its `images` keys and image seed determine how the set is made."""
    scorers: tuple[str, ...] = ()
    """Ids of the trajectories that score or embed the images."""

    @property
    def scoring(self) -> Scoring | None:
        return scoring(self.evaluation)


@dataclass(frozen=True)
class ViewsAsked:
    """Which views of a compressed set a teacher labels: the first N views of a stream."""

    recipe: Recipe
    """The recipe of a student that uses the views; its augmentations and batch size determine them."""
    seed: int
    """Seed of the views."""
    lengths: frozenset[tuple[int | None, int | None, float]]
    """(epochs, steps, keep_views) of the students."""

    def steps(self, images: int) -> int:
        """Number of views (one per step) that are needed for a set of `images` images."""
        return max(
            replace(self.recipe, epochs=epochs, steps=steps).distinct_steps(images, keep)
            for epochs, steps, keep in self.lengths
        )

    def rows(self, images: int) -> int:
        """Number of (view, image) pairs that are needed for a set of `images` images."""
        epochs, steps = divmod(self.steps(images), self.recipe.steps_per_epoch(images))
        return epochs * images + steps * min(self.recipe.batch_size, images)


@dataclass(frozen=True)
class LabelPass:
    """One forward pass of one checkpoint over one compressed set, or over views of it."""

    id: str
    compressed_set: str
    trajectory: str
    epoch: int | None
    teacher: TeacherSpec
    index: int
    """Position of the network among the teacher's networks, from 0."""
    views: ViewsAsked | None = None
    """Views that are labelled instead of the images; None labels the images."""

    def forwards(self, images: int) -> int:
        """Number of images that the teacher labels, for a compressed set of `images` images."""
        return images if self.views is None else self.views.rows(images)

    def joined(self, other: LabelPass) -> LabelPass:
        """The pass that covers the views of both passes, which have the same id."""
        if self.views is None or other.views is None:
            return self
        return replace(self, views=replace(self.views, lengths=self.views.lengths | other.views.lengths))


@dataclass(frozen=True)
class SearchOrigin:
    """How an evaluation belongs to the search that proposed it."""

    trial: int
    """Number of the trial."""
    set_job: SetJob
    """How the compressed set is made; a point is not known beforehand, so its set does not exist yet."""
    tested: bool = False
    """Whether the student is tested on the test images: only replicates of the winner are."""
    prunable: bool = False
    """Whether a scheduler may stop the student early."""


@dataclass(frozen=True)
class Planned:
    """An evaluation with the ids of everything that it depends on."""

    id: str
    evaluation: Evaluation
    compressed_set: str
    passes: tuple[LabelPass, ...] = ()
    learned: str | None = None
    """Id of the labels that are learned for the evaluation, if any."""
    origin: SearchOrigin | None = None
    """The search trial that the evaluation belongs to; None for an evaluation of a grid."""

    @property
    def tested(self) -> bool:
        """Whether the student is tested after its last step."""
        return self.origin is None or self.origin.tested

    @property
    def prunable(self) -> bool:
        """Whether a scheduler may stop the student early."""
        return self.origin is not None and self.origin.prunable

    @property
    def labels_id(self) -> str | None:
        """Id of the labels: learned labels, label passes over the images, or a labels file; else None."""
        label_passes = "+".join(p.id for p in self.passes if p.views is None)
        return self.learned or label_passes or self.evaluation.files("labels").get("path", "")[:20] or None

    @property
    def prerequisites(self) -> tuple[str, ...]:
        """Ids of the compressed set and the label passes."""
        return (self.compressed_set, *(p.id for p in self.passes))

    @property
    def needs(self) -> tuple[str, ...]:
        """Ids of everything that the evaluation depends on."""
        return self.prerequisites if self.learned is None else (*self.prerequisites, self.learned)


@dataclass(frozen=True)
class Plan:
    """Evaluations and everything that they depend on, each item once."""

    evaluations: tuple[Planned, ...]
    trajectories: Mapping[str, TrajectoryJob]
    sets: Mapping[str, SetJob]
    passes: Mapping[str, LabelPass]
    learned: Mapping[str, Planned]
    """Labels to be learned, by id, each with any evaluation that uses them."""

    def forwards(self, classes: int) -> int:
        """Number of images that teachers label."""
        return forwards(self.evaluations, classes)

    def naive_forwards(self, classes: int) -> int:
        """Number of images that teachers would label if evaluations did not share labels."""
        return naive_forwards(self.evaluations, classes)

    def counted(self, classes: int) -> dict[str, Any]:
        """The counts of the plan, as a JSON object."""
        return {
            "evaluations": len(self.evaluations),
            "teachers": {
                job.id: {"index": job.index, "epochs": list(job.epochs), "scored_epochs": job.scored}
                for job in self.trajectories.values()
            },
            "compressed_sets": len(self.sets),
            "label_passes": len(self.passes),
            "images_forwarded": self.forwards(classes),
            "images_forwarded_naively": self.naive_forwards(classes),
        }

    def without(self, finished: Collection[str]) -> Plan:
        """The plan of the evaluations whose ids are not in `finished`."""
        return assemble([p for p in self.evaluations if p.id not in finished], known=self)


def make_plan(evaluations: Iterable[Evaluation], dataset_id: str) -> Plan:
    """The plan of `evaluations`, with ids for everything that they need; equal evaluations are merged."""
    id_builder = IdBuilder(dataset_id)
    planned: dict[str, Planned] = {}
    for evaluation in evaluations:
        compressed_set = id_builder.compressed_set(evaluation)
        epoch = evaluation.point.get("labels.teacher_epoch")
        passes = []
        for index, trajectory in enumerate(id_builder.label_trajectories(evaluation)):
            assert evaluation.teacher is not None
            name = id_builder.logits(compressed_set, trajectory, epoch, id_builder.views(evaluation))
            passes.append(
                LabelPass(
                    name, compressed_set, trajectory, epoch, evaluation.teacher, index, _views(evaluation)
                )
            )
        name = id_builder.evaluation(evaluation)
        planned.setdefault(
            name, Planned(name, evaluation, compressed_set, tuple(passes), id_builder.learned(evaluation))
        )
    return assemble(planned.values(), id_builder=id_builder)


def _views(evaluation: Evaluation) -> ViewsAsked | None:
    if not evaluation.labels_views:
        return None
    recipe = evaluation.recipe
    return ViewsAsked(
        # Only what determines the views, so that passes with the same id are equal.
        replace(
            recipe,
            epochs=None,
            steps=None,
            lr=0.0,
            weight_decay=0.0,
            momentum=0.0,
            nesterov=False,
            warmup_epochs=0,
        ),
        evaluation.view_seed,
        frozenset({(recipe.epochs, recipe.steps, evaluation.keep_views)}),
    )


def assemble(
    evaluations: Iterable[Planned], *, id_builder: IdBuilder | None = None, known: Plan | None = None
) -> Plan:
    """The plan of `evaluations`; their sets are taken from `known`, or their ids built by `id_builder`."""
    evaluations = tuple(evaluations)
    sets: dict[str, SetJob] = {}
    for planned in evaluations:
        name = planned.compressed_set
        if name not in sets:
            if known is not None:
                sets[name] = known.sets[name]
            else:
                assert id_builder is not None
                sets[name] = _set_job(planned, id_builder)
    passes: dict[str, LabelPass] = {}
    for p in (p for planned in evaluations for p in planned.passes):
        passes[p.id] = p.joined(passes[p.id]) if p.id in passes else p
    learned = {p.learned: p for p in evaluations if p.learned is not None}
    return Plan(evaluations, trajectory_jobs(sets.values(), passes.values()), sets, passes, learned)


def trajectory_jobs(sets: Iterable[SetJob], passes: Iterable[LabelPass]) -> dict[str, TrajectoryJob]:
    """What compressed sets and label passes need from teachers, by the id of the trajectory."""
    jobs: dict[str, TrajectoryJob] = {}
    for job in sets:
        need = job.scoring
        for index, trajectory in enumerate(job.scorers):
            assert need is not None
            if need.what == "scores":
                _add_need(jobs, trajectory, need.scorer, index, scored=need.epoch or 0)
            else:
                _add_need(jobs, trajectory, need.scorer, index, epoch=need.epoch)
    for p in passes:
        _add_need(jobs, p.trajectory, p.teacher, p.index, epoch=p.epoch)
    return jobs


def _set_job(planned: Planned, id_builder: IdBuilder) -> SetJob:
    need = scoring(planned.evaluation)
    scorers = [id_builder.trajectory(need.scorer, i) for i in range(need.networks)] if need else []
    return SetJob(planned.compressed_set, planned.evaluation, tuple(scorers))


def _add_need(
    jobs: dict[str, TrajectoryJob],
    trajectory: str,
    teacher: TeacherSpec,
    index: int,
    *,
    epoch: int | None = None,
    scored: int = 0,
) -> None:
    """Add an epoch or scores that are needed from a trajectory to its job."""
    job = jobs.get(trajectory) or TrajectoryJob(trajectory, teacher, index)
    epochs = {*job.epochs, epoch} if epoch is not None else {*job.epochs}
    jobs[trajectory] = replace(job, epochs=tuple(sorted(epochs)), scored=max(job.scored, scored))


def set_size(evaluation: Evaluation, classes: int) -> int:
    """Number of images in the compressed set of `evaluation`."""
    dropped = 1 if "images.drop_class" in evaluation.point else 0
    return evaluation.ipc * (classes - dropped)


def forwards(evaluations: Iterable[Planned], classes: int) -> int:
    """Number of images that teachers label for `evaluations`; each pass is counted once."""
    passes: dict[str, LabelPass] = {}
    sizes: dict[str, int] = {}
    for planned in evaluations:
        for p in planned.passes:
            passes[p.id] = p.joined(passes[p.id]) if p.id in passes else p
            sizes[p.id] = set_size(planned.evaluation, classes)
    return sum(p.forwards(sizes[name]) for name, p in passes.items())


def naive_forwards(evaluations: Iterable[Planned], classes: int) -> int:
    """Number of images that teachers would label for `evaluations` if they did not share labels."""
    return sum(p.forwards(set_size(e.evaluation, classes)) for e in evaluations for p in e.passes)


def forwards_sentence(now: int, forwards: int, naive_forwards: int) -> str:
    """The summary of labelled images at the end of a run: in this run, in the study, and without sharing."""
    return (
        f"labels: {now:,} images forwarded now, {forwards:,} in the study; "
        f"labelling again for every evaluation would forward {naive_forwards:,}"
    )


STEP_OVERHEAD_IMAGES = 16
"""Overhead of a step, in images (measured on one CPU core with small ConvNets)."""


def student_cost(evaluation: Evaluation, classes: int, test_images: int) -> float:
    """Cost of an evaluation in training images; a test image counts as a third."""
    recipe = evaluation.recipe
    images = set_size(evaluation, classes)
    step = min(images, recipe.batch_size) + STEP_OVERHEAD_IMAGES
    return recipe.total_steps(images) * step + test_images / 3
