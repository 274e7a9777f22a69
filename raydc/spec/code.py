"""The code of plugins: which parts of a study come from plugins, and the digests of their code.

The ids of everything that a plugin's part produces include these digests, so an edited part produces new
artifacts and new results. Parts of raydc have no digest: their ids change with the protocol version only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from raydc.errors import EvaluationError
from raydc.spec import catalog
from raydc.spec.keys import Point
from raydc.spec.registry import Registry

Code = Mapping[str, str]
"""Digests of code by `KEY=NAME`, such as `images.method=mine`; empty without plugins."""
_Part = tuple[str, Registry[Any], str]
"""(key of the study file, registry, name)."""


def code_of(point: Point) -> Code:
    """The code of the parts from plugins that an evaluation at `point` runs."""
    method = catalog.METHODS[str(point["images.method"])]
    parts: list[_Part] = [("images.method", catalog.METHODS, method.name)]
    parts += [("images.score", catalog.SCORES, score) for score in method.scores_of(point)]
    parts += [("labels.kind", catalog.LABELS, str(point["labels.kind"]))]
    if "labels.codec" in point:
        parts += [("labels.codec", catalog.CODECS, str(point["labels.codec"]))]
    return _digests([*parts, *_training(str(point["student.arch"]), point)])


def code_of_training(arch: str, train: Point) -> Code:
    """The code of the parts from plugins that train a network with the `train` keys of a point."""
    return _digests(_training(arch, train))


def _training(arch: str, point: Point) -> Iterator[_Part]:
    yield "student.arch", catalog.NETWORKS, catalog.NETWORKS.of(arch)[0].name
    for key, registry in (
        ("train.optimizer", catalog.OPTIMIZERS),
        ("train.schedule", catalog.SCHEDULES),
        ("train.loss", catalog.LOSSES),
    ):
        if key in point:
            yield key, registry, str(point[key])
    for name in point.get("train.augment", ()):
        yield "train.augment", catalog.AUGMENTATIONS, name


def _digests(parts: Iterable[_Part]) -> Code:
    found = {f"{key}={name}": registry.code(name) for key, registry, name in parts}
    return {name: digest for name, digest in found.items() if digest is not None}


def of_keys(code: Code, *keys: str) -> Code:
    """The part of `code` that belongs to the given keys."""
    return {name: digest for name, digest in code.items() if name.partition("=")[0] in keys}


def text_of(code: Code) -> str:
    """`mine@0123456789ab`, joined by `+`, as shown in results."""
    return "+".join(f"{name.partition('=')[2]}@{digest}" for name, digest in code.items())


def check_code(planned: Code, here: Code) -> None:
    """Raise `EvaluationError` if the code in this process differs from the code in the plan."""
    for name in sorted({*planned, *here}):
        if planned.get(name) != here.get(name):
            raise EvaluationError(
                f"the code of the plugin part {name} differs from the code that the study was planned with; "
                "run the study again"
            )
