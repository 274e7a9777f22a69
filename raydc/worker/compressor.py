"""Compression: makes a compressed set from a dataset and the outputs of a scorer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from raydc.data.array_file import read_array
from raydc.data.dataset import Dataset
from raydc.data.image_set import CompressedSet
from raydc.data.imported import digest_of
from raydc.errors import ArtifactError, EvaluationError
from raydc.methods.pool import Loop, Made, Pool, unsaved
from raydc.methods.steps import SavedSteps
from raydc.spec import catalog
from raydc.spec.evaluation import Evaluation, TeacherSpec
from raydc.spec.keys import Value
from raydc.spec.plan import SetJob
from raydc.spec.seeding import seed_of
from raydc.store.artifact import Store, get
from raydc.store.saved import OnProgress, Saved
from raydc.teachers.checkpoint import Loaded, name_of, score_records
from raydc.teachers.observer import Observer
from raydc.training.inputs import TensorInputs

FEATURE_BLOCK = 2048
FLOAT16_BYTES = 2
FLOAT16_MOST = float(np.finfo(np.float16).max)
MOST_TILES = 4
"""Largest number of tiles along a side of an image; `patch_shuffle` draws numbers for this many."""

Checkpoint: TypeAlias = Callable[[str, int | None, TeacherSpec], Loaded]
"""(trajectory, epoch, teacher) to the network, resident on the device."""


def method_keys(evaluation: Evaluation) -> dict[str, Value]:
    """The keys of `images` that the method of `evaluation` reads, by their names inside the block."""
    images = evaluation.block("images")
    names = [key.name.removeprefix("images.") for key in catalog.METHODS[evaluation.method].keys]
    return {name: images[name] for name in names if name in images}


def pool_of(
    dataset: Dataset,
    evaluation: Evaluation,
    scores: Mapping[str, NDArray[np.float32]] | None = None,
    features: NDArray[np.float32] | None = None,
    observe: Observer | None = None,
    device: str = "cpu",
    loop: Loop = unsaved,
) -> Pool:
    """The pool that the method of `evaluation` selects from."""
    keys = method_keys(evaluation)
    keys |= evaluation.files("images")
    dropped = evaluation.point.get("images.drop_class")
    seed = seed_of("images", evaluation.image_seed, evaluation.method, keys, evaluation.ipc)
    return Pool(
        labels=dataset.train.labels,
        classes=tuple(c for c in range(dataset.classes) if c != dropped),
        ipc=evaluation.ipc,
        generator=np.random.Generator(np.random.Philox(seed)),
        scores=scores or {},
        take=dataset.train.take,
        shape=(dataset.channels, dataset.resolution, dataset.resolution),
        space=dataset.space,
        class_names=dataset.class_names,
        features=features,
        observe=observe,
        device=device,
        loop=loop,
    )


@dataclass(frozen=True)
class Compressor:
    """Makes the compressed sets of one dataset."""

    dataset: Dataset
    store: Store
    device: torch.device
    checkpoint: Checkpoint

    def make(self, job: SetJob, saved: Saved, progress: OnProgress) -> CompressedSet:
        """The set of `job`, whose scorers must be in the store.

        A method that trains resumes from `saved` and calls `progress` with (steps done, steps in total).
        Raises `ArtifactError` if its files have changed, `EvaluationError` if what the method returns is not
        a valid set.
        """
        images = job.evaluation.block("images")
        method = catalog.METHODS[str(images["method"])]
        for name, expected in job.evaluation.files("images").items():
            if digest_of(f"images.{name}", str(images[name])) != expected:
                raise ArtifactError(
                    f"images.{name} is {images[name]!r}, whose contents have changed since the run began"
                )
        pool = pool_of(
            self.dataset,
            job.evaluation,
            scores=self.scores(job) if method.needs_at(job.evaluation.point) == "scores" else {},
            features=self.features(job) if method.needs == "features" else None,
            observe=self.observer(job) if method.needs == "observer" else None,
            device=str(self.device),
            loop=SavedSteps(saved, progress) if method.trains else _no_steps,
        )
        made = method.load()(pool, **method_keys(job.evaluation))
        if isinstance(made, Made):
            assert len(made.labels) == pool.ipc * len(pool.classes), f"{method.name} made {len(made.labels)}"
            assert max(made.grid) <= MOST_TILES, f"{method.name} made a grid of {made.grid}"
            return self._set_of(made, str(images["encoding"]))
        rows, train = made, self.dataset.train
        assert len(rows) == pool.ipc * len(pool.classes), f"{method.name} chose {len(rows)} images"
        return CompressedSet.from_pixels(
            train.take(rows),
            train.labels[rows],
            str(images["encoding"]),
            sources=train.index[rows][:, None],
        )

    def _set_of(self, made: Made, encoding: str) -> CompressedSet:
        sources = None if made.sources is None else self.dataset.train.index[made.sources]
        if made.space == "pixel":
            pixels = _pixels(made.images)
            whole = CompressedSet.from_pixels(pixels, made.labels, encoding, sources=sources, grid=made.grid)
            return replace(whole, soft_labels=made.soft_labels)
        if made.space != self.dataset.space:
            raise EvaluationError(
                f"the method made images in the space {made.space}, but the study's inputs are "
                f"{self.dataset.space}; images must be in that space or in pixel"
            )
        images = np.asarray(made.images, np.float32)
        if not (np.abs(images) <= FLOAT16_MOST).all():
            raise EvaluationError(
                f"the method made images with values that are not finite or exceed {FLOAT16_MOST:,.0f}, the "
                "largest value that a set can store"
            )
        return CompressedSet(
            images,
            made.labels,
            images_bytes=made.images.size * FLOAT16_BYTES,
            space=made.space,
            sources=sources,
            grid=made.grid,
            soft_labels=made.soft_labels,
        )

    def scores(self, job: SetJob) -> dict[str, NDArray[np.float32]]:
        """Scores [N] used to select the set of `job`; larger is harder."""
        need = job.scoring
        assert need is not None
        assert need.epoch is not None
        records = score_records(job.scorers, need.epoch, self.store)
        names = catalog.METHODS[job.evaluation.method].scores_of(job.evaluation.point)
        scores = {}
        for name in names:
            score = catalog.SCORES[name]
            scores[name] = score.load()(records[:, : score.epochs])
        return scores

    def features(self, job: SetJob) -> NDArray[np.float32]:
        """Penultimate features [N, D] of the train part; computed once, stored, and memory-mapped."""
        need = job.scoring
        assert need is not None
        trajectory = job.scorers[0]
        name = name_of(trajectory, need.epoch)
        artifact = self.store.find("features", name)
        if artifact is None:
            loaded = self.checkpoint(trajectory, need.epoch, need.scorer)
            blocks = [
                loaded.teacher.features(TensorInputs(loaded.inputs(torch.from_numpy(pixels).to(self.device))))
                for pixels in self.dataset.train.blocks(FEATURE_BLOCK)
            ]
            with self.store.draft("features") as draft:
                np.save(draft.path("features.npy"), torch.cat(blocks).numpy())
                draft.commit(name)
            artifact = get(self.store, "features", name)
        features: NDArray[np.float32] = read_array(artifact.path("features.npy"), mapped=True)
        return features

    def observer(self, job: SetJob) -> Observer:
        """The observer that scores crops for the set of `job`."""
        need = job.scoring
        assert need is not None
        return Observer(self.dataset, self.checkpoint(job.scorers[0], need.epoch, need.scorer))


def _no_steps(total: int, parts: Mapping[str, Any], generator: np.random.Generator) -> Iterator[int]:
    del parts, generator
    raise TypeError(f"the method takes {total} steps, but its entry does not set trains=True")


def _pixels(images: NDArray[np.uint8] | NDArray[np.float32]) -> NDArray[np.uint8]:
    """Images of the space pixel as uint8; floats are in [0, 1], else `EvaluationError`."""
    if images.dtype.kind != "f":
        return np.asarray(images, np.uint8)
    low, high = float(images.min()), float(images.max())
    if not (low >= 0 and high <= 1):
        raise EvaluationError(
            f"the method made images with values from {low:.3g} to {high:.3g}, but floats in the space pixel "
            "must be from 0 to 1; clip them"
        )
    return np.rint(images * 255).astype(np.uint8)
