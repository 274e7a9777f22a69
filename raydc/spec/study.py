"""The study file: read, merged with `smoke` and `--set`, checked, and turned into a `StudySpec`.

Every problem is an `InputError` of one sentence with the file, the dotted key, what was given and what is
allowed. All given values are checked, also those of keys that do not apply.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from raydc.errors import InputError, did_you_mean, one_of, without_password
from raydc.spec import catalog, point
from raydc.spec.blocks import cast_block, dataset_of, grids_of, scorer_of, seeds_of, teachers_of
from raydc.spec.code import code_of
from raydc.spec.evaluation import DatasetSpec, Evaluation, TeacherSpec
from raydc.spec.identity import IdBuilder
from raydc.spec.keys import Grammar, Point, Value
from raydc.spec.layers import merged
from raydc.spec.search import SearchSpec
from raydc.spec.search_block import search_of
from raydc.spec.study_file import Resources, framed
from raydc.spec.tracking_block import TrackingSpec, tracking_of
from raydc.spec.yaml_file import LARGEST_FILE_BYTES, dump_yaml, parse_yaml, read_text


@dataclass(frozen=True)
class StudySpec:
    """A checked study: what to evaluate, on what, with which resources."""

    name: str
    dataset: DatasetSpec
    teachers: Mapping[str, TeacherSpec]
    scorer: TeacherSpec | None
    base: Point
    """Given canonical values by dotted key, without the defaults of the recipe."""
    grids: tuple[Mapping[str, tuple[Value, ...]], ...]
    """Grids of values by dotted key; all combinations of each grid are evaluated."""
    seeds: tuple[int, ...]
    resources: Resources
    tracking: TrackingSpec
    store_uri: str | None
    source: str
    """Name of the file in messages."""
    raw: Mapping[str, Any]
    """Contents of the file, merged with `smoke` and `--set`."""
    search: SearchSpec | None = None
    """The search that proposes points, instead of the grids."""

    def located(self, tracking_uri: str | None, store_uri: str | None) -> StudySpec:
        """The study with another tracking URI or store, if one is given.

        Raises `InputError` for a tracking URI that the study's tracker does not accept.
        """
        raw = dict(self.raw)
        for block, uri in (("tracking", tracking_uri), ("store", store_uri)):
            if uri:
                # A folder is relative to the current one, wherever the file is read again.
                plain = block == "store" and "://" not in uri
                given = str(Path(uri).absolute()) if plain else uri
                raw[block] = {**(raw.get(block) or {}), "uri": given}
        return replace(
            self,
            tracking=self.tracking.at(tracking_uri) if tracking_uri else self.tracking,
            store_uri=store_uri or self.store_uri,
            raw=raw,
        )

    def to_yaml(self) -> str:
        """The merged study file without passwords; loading it gives an equal study, except for passwords."""
        return dump_yaml(_without_passwords(self.raw))

    def evaluations(self, grammar: Grammar | None = None) -> list[Evaluation]:
        """Every evaluation, each once, in the order of the grids.

        The points of a search are not known beforehand. For a search, these are evaluations of example
        points, which are used to check the search and to determine its teachers. Raises `InputError` for an
        invalid point and for a key that applies to no point.
        """
        grammar = grammar or point.point_grammar()
        id_builder = IdBuilder("unknown data", grammar)
        unique: dict[str, Evaluation] = {}
        used: set[str] = set()
        for where, chosen in self._choices():
            given = self._given(chosen)
            try:
                evaluations = self.at(chosen, self.seeds if self.search is None else self.seeds[:1], grammar)
            except InputError as error:
                raise InputError(f"{self.source}: {where}{error}") from None
            used |= evaluations[0].point.keys()
            used |= self.base.keys() - given.keys()
            used |= {key for key, value in given.items() if value is None}
            for evaluation in evaluations:
                unique.setdefault(id_builder.evaluation(evaluation), evaluation)
        for where, block in self._given_blocks():
            if (problem := point.unused(grammar, block, used)) is not None:
                raise InputError(f"{self.source}: {where}{problem}")
        return list(unique.values())

    def at(
        self, chosen: Mapping[str, Value], seeds: Iterable[int], grammar: Grammar | None = None
    ) -> list[Evaluation]:
        """The replicates `seeds` of one point: the base with the `chosen` values.

        Raises `InputError`, without the file's name, if the point is invalid.
        """
        grammar = grammar or point.point_grammar()
        resolved = point.resolve(grammar, self._given(chosen))
        teacher = self._teacher(resolved)
        scorer = self._scorer(resolved)
        code = code_of(resolved)
        return [Evaluation(self.dataset, resolved, seed, teacher, scorer, code=code) for seed in seeds]

    def _given(self, chosen: Mapping[str, Value]) -> dict[str, Value]:
        """The given values of a point: `chosen`, and the base without keys that `chosen` values replace."""
        rivals = {rival for key, rival in point.EXCLUSIVE_KEYS.items() if key in chosen}
        return {key: value for key, value in self.base.items() if key not in rivals} | dict(chosen)

    def _choices(self) -> Iterator[tuple[str, dict[str, Value]]]:
        """The chosen values of every point, each with the prefix of messages about it."""
        if self.search is not None:
            for chosen in self.search.examples():
                yield "", chosen
            return
        for where, grid in self._grids():
            for values in itertools.product(*grid.values()):
                yield where, dict(zip(grid, values, strict=True))

    def _given_blocks(self) -> list[tuple[str, Mapping[str, Value]]]:
        """The blocks whose keys must apply to some point, each with the prefix of messages about it."""
        blocks: list[tuple[str, Mapping[str, Value]]] = [("base.", self.base)]
        if self.search is not None:
            return [*blocks, ("search.optuna.space.", {d.key: d.ends() for d in self.search.space})]
        return blocks + [(where.replace(": ", ".") or "grid.", grid) for where, grid in self._grids()]

    def _grids(self) -> list[tuple[str, Mapping[str, tuple[Value, ...]]]]:
        if len(self.grids) == 1:
            return [("", self.grids[0])]
        return [(f"grid.{i}: ", grid) for i, grid in enumerate(self.grids)]

    def _teacher(self, resolved: dict[str, Value]) -> TeacherSpec | None:
        """The teacher that labels a point; sets the keys of `resolved` that depend on the teacher."""
        kind = str(resolved["labels.kind"])
        if not catalog.LABELS[kind].needs_teacher(resolved):
            return None
        if not self.teachers:
            raise InputError(f"labels.kind is {kind}, which needs a teacher; add a teacher block")
        name = resolved.get("labels.teacher")
        if name is None:
            if len(self.teachers) > 1:
                raise InputError(
                    "labels.teacher is missing; the study has several teachers, so choose "
                    f"{one_of(self.teachers)}"
                )
            name = next(iter(self.teachers))
        if name not in self.teachers:
            raise InputError(
                f"labels.teacher is {name!r}, but must be {one_of(self.teachers)}"
                f"{did_you_mean(name, self.teachers)}"
            )
        teacher = self.teachers[name]
        resolved["labels.teacher"] = name
        if (ensemble := resolved.get("labels.ensemble", 1)) > teacher.count:
            raise InputError(
                f"labels.ensemble is {ensemble}, but the teacher {name!r} has count {teacher.count}; "
                "raise its count"
            )
        if teacher.is_buffer:
            if "labels.teacher_epoch" not in resolved:
                raise InputError(
                    f"labels.teacher_epoch is missing; the teacher {name!r} is a buffer of many epochs, so "
                    "give one"
                )
            return teacher
        if not teacher.trained_here:
            resolved.pop("labels.teacher_epoch", None)
            return teacher
        assert teacher.epochs is not None
        epoch = resolved.setdefault("labels.teacher_epoch", teacher.epochs)
        if epoch > teacher.epochs:
            raise InputError(
                f"labels.teacher_epoch is {epoch}, but the teacher {name!r} is trained for "
                f"{teacher.epochs} epochs; choose at most that, or raise its epochs"
            )
        if teacher.keep is not None and epoch not in teacher.keep:
            raise InputError(
                f"labels.teacher_epoch is {epoch}, but the teacher {name!r} keeps only the epochs "
                f"{_ranges(teacher.keep)}; add {epoch} to its keep"
            )
        return teacher

    def _scorer(self, resolved: Point) -> TeacherSpec | None:
        """The network that scores or embeds the images of a point; None if the method needs none."""
        method = str(resolved["images.method"])
        needs = catalog.METHODS[method].needs_at(resolved)
        if needs == "nothing":
            return None
        scorer = self.scorer
        if scorer is None:
            if len(self.teachers) != 1:
                raise InputError(
                    f"images.method is {method}, which needs a scorer; add a scorer block"
                    + (" or the name of one of the teachers" if self.teachers else "")
                )
            scorer = next(iter(self.teachers.values()))
        if scorer.is_buffer:
            raise InputError(
                f"images.method is {method}, which needs a scorer, but {scorer.name!r} is a buffer of many "
                "epochs; add a scorer block"
            )
        if needs == "scores" and not scorer.trained_here:
            raise InputError(
                f"images.method is {method}, whose scores are recorded while a scorer is trained, but "
                f"{scorer.name!r} is not trained here; add a scorer block without checkpoint or weights"
            )
        if needs == "scores":
            assert scorer.epochs is not None
            if (score_epoch := resolved.get("images.score_epoch", 1)) > scorer.epochs:
                raise InputError(
                    f"images.score_epoch is {score_epoch}, but {scorer.name!r} is trained for "
                    f"{scorer.epochs} epochs; choose at most that"
                )
            for name in catalog.METHODS[method].scores_of(resolved):
                least = catalog.SCORES[name].least_epochs
                if scorer.epochs < least:
                    raise InputError(
                        f"images.method is {method}, whose score {name} needs at least {least} epochs, but "
                        f"{scorer.name!r} is trained for {scorer.epochs}; raise its epochs"
                    )
        return scorer


def _without_passwords(value: Any) -> Any:
    """A value of a study file, without passwords in the URIs that it contains."""
    if isinstance(value, Mapping):
        return {key: _without_passwords(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_without_passwords(part) for part in value]
    return without_password(value) if isinstance(value, str) and "://" in value else value


def _ranges(epochs: Sequence[int]) -> str:
    if len(epochs) > 12:
        return f"{', '.join(map(str, epochs[:5]))}, ..., {epochs[-1]}"
    return one_of(epochs).replace(" or ", " and ")


def load_study(
    path: str | Path,
    *,
    settings: Iterable[str] = (),
    smoke: bool = False,
) -> StudySpec:
    """Read, merge and check the study file at `path`.

    `settings` are `KEY=VALUE` strings (dotted path from the root, value in YAML); `smoke` merges the
    file's `smoke` block first. Raises `InputError`.
    """
    file = Path(path)
    if not file.exists():
        raise InputError(
            f"{path}: there is no such study file; give a path or a name that `raydc list studies` shows"
        )
    # A pipe or a device has no known size, so the number of bytes read is limited.
    text = read_text(file, LARGEST_FILE_BYTES)
    return parse_study(text, str(path), settings=settings, smoke=smoke)


def parse_study(text: str, source: str, *, settings: Iterable[str] = (), smoke: bool = False) -> StudySpec:
    """Like `load_study`, but from the text of a file; `source` is its name in messages."""
    raw = parse_yaml(text, source)
    if not isinstance(raw, dict):
        raise InputError(f"{source}: a study file is a mapping with name, dataset and base")
    if raw.get("smoke") and not smoke:
        parse_study(text, source, smoke=True)  # problems of the smoke block are reported in any case
    return _checked(merged(raw, source, settings, smoke), source)


def _checked(raw: dict[str, Any], source: str) -> StudySpec:
    file = framed(raw, source)
    grammar = point.point_grammar()
    if file.search is not None and file.grid:
        raise InputError(f"{source}: search and grid exclude each other; keep one")
    if isinstance(file.resources.workers, int) and file.resources.workers < 1:
        raise InputError(
            f"{source}: resources.workers is {file.resources.workers}, but must be auto or a whole "
            "number of at least 1"
        )
    base = cast_block(grammar, file.base, f"{source}: base.")
    teachers = teachers_of(grammar, file, source)
    dataset = dataset_of(file.dataset, source)
    search = search_of(grammar, file.search, source)
    if search is not None and dataset.val_fraction == 0:
        raise InputError(
            f"{source}: dataset.val_fraction is 0, but a search selects points by validation images; give a "
            "fraction above 0, such as 0.1"
        )
    study = StudySpec(
        name=file.name,
        dataset=dataset,
        teachers=teachers,
        scorer=scorer_of(grammar, file.scorer, teachers, source),
        base=base,
        grids=grids_of(grammar, file.grid, source),
        seeds=seeds_of(file.seeds, source),
        resources=file.resources,
        tracking=tracking_of(file.tracking, source),
        store_uri=file.store.uri,
        source=source,
        raw=raw,
        search=search and search.for_kept(teachers),
    )
    study.evaluations(grammar)
    return study
