"""What a plan knows about the data, and the checks of a study against the data."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from raydc.errors import InputError, did_you_mean
from raydc.spec import catalog
from raydc.spec.evaluation import Evaluation
from raydc.spec.keys import Value

NUMBERED_CLASSES = 1 << 16
"""Largest number of classes that the 16-bit class numbers of a stored label can distinguish."""


@dataclass(frozen=True)
class DataFacts:
    """Facts about a dataset after its options were applied."""

    dataset_id: str
    """Id of the contents and options."""
    class_names: tuple[str, ...]
    train_counts: tuple[int, ...]
    """Number of images of each class that a compressed set may be made from."""
    test_images: int
    val_images: int
    channels: int
    resolution: int
    """Side in pixels."""

    @property
    def classes(self) -> int:
        return len(self.class_names)


def bind(evaluations: Iterable[Evaluation], facts: DataFacts, source: str) -> list[Evaluation]:
    """Check that each evaluation is possible with these data, and replace class names by numbers.

    Raises `InputError` with `source`, the key, the value and what the data allow.
    """
    bound = []
    for evaluation in evaluations:
        try:
            point = _with_class_numbers(evaluation.point, facts)
            _check_ipc(evaluation.ipc, point, facts)
            for name in ("labels.top_k", "labels.swap_rank", "labels.store_top_k"):
                if point.get(name, 1) > facts.classes:
                    raise InputError(
                        f"{name} is {point[name]}, but must be at most the number of classes, {facts.classes}"
                    )
            for name in ("labels.top_k", "labels.store_top_k"):
                if name in point and facts.classes > NUMBERED_CLASSES:
                    raise InputError(
                        f"{name} is {point[name]}, but a stored class number has 16 bits, enough for "
                        f"{NUMBERED_CLASSES:,} classes, and the data have {facts.classes:,}; remove it"
                    )
            for key, arch in _archs(evaluation):
                _check_depth(key, arch, facts.resolution)
        except InputError as error:
            raise InputError(f"{source}: {error}") from None
        bound.append(replace(evaluation, point=point))
    return bound


def _archs(evaluation: Evaluation) -> list[tuple[str, str]]:
    """(key, architecture) of all networks."""
    teachers = [t for t in (evaluation.teacher, evaluation.scorer) if t is not None]
    return [("student.arch", evaluation.arch), *((f"{t.name}.arch", t.arch) for t in teachers)]


def _check_ipc(ipc: int, point: Mapping[str, Value], facts: DataFacts) -> None:
    if not catalog.METHODS[str(point["images.method"])].from_train:
        return
    kept = [c for c in range(facts.classes) if c != point.get("images.drop_class")]
    tiles = int(str(point.get("images.combine", "1x1")).partition("x")[0]) ** 2
    if point.get("images.balance", "class") == "global":
        available = sum(facts.train_counts[c] for c in kept)
        if ipc * len(kept) > available:
            raise InputError(
                f"images.ipc is {ipc}, or {ipc * len(kept):,} images of {len(kept)} classes, but "
                f"there are {available:,} training images; choose at most {available // len(kept)}"
            )
        return
    if ipc * tiles > (pool := point.get("images.mipc", ipc * tiles)):
        raise InputError(
            f"images.mipc is {pool}, but images.ipc is {ipc} with {tiles} crops per image (images.combine), "
            f"each from a different image; raise it to at least {ipc * tiles}"
        )
    smallest = min(kept, key=lambda c: facts.train_counts[c])
    if ipc * tiles > facts.train_counts[smallest]:
        combined = f" of {tiles} images each (images.combine)" if tiles > 1 else ""
        raise InputError(
            f"images.ipc is {ipc}{combined}, but the class {facts.class_names[smallest]!r} has "
            f"{facts.train_counts[smallest]} training images; choose at most "
            + ("that" if tiles == 1 else str(facts.train_counts[smallest] // tiles))
        )


def _check_depth(key: str, arch: str, resolution: int) -> None:
    match = re.fullmatch(r"convnet-d(\d+)-w\d+(-bn)?", arch)
    if match and resolution >> int(match[1]) < 1:
        deepest = resolution.bit_length() - 1
        raise InputError(
            f"{key} is {arch}, which halves its input {match[1]} times, but the images have "
            f"{resolution} x {resolution} pixels; choose a depth of at most {deepest} or raise "
            "dataset.resolution"
        )


def _with_class_numbers(point: Mapping[str, Value], facts: DataFacts) -> dict[str, Value]:
    numbered = dict(point)
    for name in ("images.drop_class", "labels.drop_class"):
        chosen = point.get(name)
        if isinstance(chosen, str):
            if chosen not in facts.class_names:
                raise InputError(
                    f"{name} is {chosen!r}, which is not a class of the data"
                    f"{did_you_mean(chosen, facts.class_names)}"
                )
            numbered[name] = facts.class_names.index(chosen)
        elif chosen is not None and chosen >= facts.classes:
            raise InputError(
                f"{name} is {chosen}, but the classes are numbered from 0 to {facts.classes - 1}"
            )
    return numbered
