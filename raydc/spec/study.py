"""The study file: read, merged with `smoke` and `--set`, checked, and made into a `Study`.

All problems are `InputError`s of one sentence that names the file, the dotted key, what was given
and what is allowed. Values are checked before keys fall away.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from raydc.errors import InputError, did_you_mean, one_of
from raydc.spec import catalog, point
from raydc.spec.evaluation import DatasetSpec, Evaluation, TeacherSpec
from raydc.spec.identity import Namer
from raydc.spec.keys import LARGEST, Grammar, Key, Many, OneOf, Point, Text, Value, Whole, show
from raydc.spec.yaml_file import LARGEST_FILE_BYTES, dump_yaml, parse_yaml

SEPARATE_BLOCKS = ("base", "teacher", "teachers", "scorer")
"""Blocks whose keys may be written nested or dotted."""
SOURCES = ("name", "parquet", "folder", "hub")
TEACHER_DEFAULT_RECIPE = "mtt-expert"
TEACHER_ONLY = Grammar.of(
    [
        Key("arch", point.ARCH, "network of the teacher"),
        Key(
            "keep",
            OneOf((Many(Whole(0), form="a list of epochs"), Text("all", "all"))),
            "epochs whose checkpoints may be used; default: those that the study uses",
            None,
        ),
        Key("count", Whole(1), "how many networks, differing in their seed", 1),
        Key("checkpoint", Text(form="the path of a file"), "trained weights to use instead", None),
        Key("weights", Text(form="a tag of published weights"), "published weights to use", None),
    ]
)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Resources(_Part):
    """What a run may use."""

    workers: Literal["auto"] | int = Field("auto")
    """Students trained at a time; auto: one a CPU core, or 1 / gpu_share a GPU."""
    threads: int = Field(1, ge=1)
    """CPU threads of one student."""
    teacher_replicas: int = Field(1, ge=1)
    """Teacher actors."""
    gpu_share: float = Field(1.0, gt=0, le=1)
    """Part of a GPU that one worker takes."""
    evaluation_timeout_seconds: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Longest time that one evaluation may take; null sets no limit."""
    retries: int = Field(2, ge=0)
    """How often an evaluation is tried again after its worker died."""


class Tracking(_Part):
    """Where MLflow records."""

    uri: str | None = None
    """Tracking URI; null: SQLite in the study's folder."""


class StoreConfig(_Part):
    """Where artifacts are kept."""

    uri: str | None = None
    """Folder, or a URI that pyarrow.fs opens; null: `.raydc-store` beside the output folder."""


class _DatasetFile(_Part):
    name: str | None = None
    parquet: str | None = None
    folder: str | None = None
    hub: str | None = None
    root: str | None = None
    resolution: int | None = Field(None, ge=1, le=4096)
    zca: bool = False
    val_fraction: float | None = Field(None, ge=0, lt=1)
    classes: int | list[int | str] | None = None
    train_limit: int | None = Field(None, ge=1)
    cache_limit_gib: float = Field(8.0, gt=0, allow_inf_nan=False)


class _StudyFile(_Part):
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    dataset: _DatasetFile
    teacher: dict[str, Any] | None = None
    teachers: dict[str, dict[str, Any]] | None = None
    scorer: str | dict[str, Any] | None = None
    base: dict[str, Any]
    grid: dict[str, Any] | list[dict[str, Any]] | None = None
    seeds: int | list[int] = 1
    search: dict[str, Any] | None = None
    resources: Resources = Resources()
    tracking: Tracking = Tracking()
    store: StoreConfig = StoreConfig()
    smoke: dict[str, Any] = {}


@dataclass(frozen=True)
class Study:
    """A checked study: what to evaluate, on what, with which resources."""

    name: str
    dataset: DatasetSpec
    teachers: Mapping[str, TeacherSpec]
    scorer: TeacherSpec | None
    base: Point
    """Given values by dotted key, canonical, before the recipe fills the rest."""
    grids: tuple[Mapping[str, tuple[Value, ...]], ...]
    """Their union is evaluated; each is crossed."""
    seeds: tuple[int, ...]
    resources: Resources
    tracking_uri: str | None
    store_uri: str | None
    source: str
    """What messages call the file."""
    raw: Mapping[str, Any]
    """The file as merged with `smoke` and `--set`."""

    def located(self, tracking_uri: str | None, store_uri: str | None) -> Study:
        """The study with another tracking server or store, where one is given.

        What the command line says goes into the resolved file too, but never a password.
        """
        raw = dict(self.raw)
        for block, uri in (("tracking", tracking_uri), ("store", store_uri)):
            if uri is not None:
                # A folder is meant from here, wherever the file is read again.
                plain = block == "store" and "://" not in uri
                raw[block] = {"uri": str(Path(uri).absolute()) if plain else _without_password(uri)}
        return replace(
            self,
            tracking_uri=tracking_uri or self.tracking_uri,
            store_uri=store_uri or self.store_uri,
            raw=raw,
        )

    def to_yaml(self) -> str:
        """The study as merged; loading it again gives an equal study."""
        return dump_yaml(dict(self.raw))

    def evaluations(self, grammar: Grammar | None = None) -> list[Evaluation]:
        """Every evaluation, each once, in the order of the grids.

        Raises `InputError` for a point that cannot be and for a key that applies to no point.
        """
        grammar = grammar or point.point_grammar()
        namer = Namer("unknown data", grammar)
        unique: dict[str, Evaluation] = {}
        used: set[str] = set()
        for where, grid in self._grids():
            for values in itertools.product(*grid.values()):
                chosen = dict(zip(grid, values, strict=True))
                given = dict(self.base)
                for key, rival in point.RIVALS.items():
                    if key in chosen and given.pop(rival, None) is not None:
                        used.add(rival)
                given |= chosen
                try:
                    resolved = point.resolve(grammar, given)
                    teacher = self._teacher(resolved)
                    scorer = self._scorer(resolved)
                except InputError as error:
                    raise InputError(f"{self.source}: {where}{error}") from None
                used |= resolved.keys()
                used |= {key for key, value in given.items() if value is None}
                for seed in self.seeds:
                    evaluation = Evaluation(self.dataset, resolved, seed, teacher, scorer)
                    unique.setdefault(namer.evaluation(evaluation), evaluation)
        given_blocks: list[tuple[str, Mapping[str, Value]]] = [("base.", self.base)]
        given_blocks += [(where.replace(": ", ".") or "grid.", grid) for where, grid in self._grids()]
        for where, block in given_blocks:
            if (problem := point.unused(grammar, block, used)) is not None:
                raise InputError(f"{self.source}: {where}{problem}")
        return list(unique.values())

    def _grids(self) -> list[tuple[str, Mapping[str, tuple[Value, ...]]]]:
        if len(self.grids) == 1:
            return [("", self.grids[0])]
        return [(f"grid.{i}: ", grid) for i, grid in enumerate(self.grids)]

    def _teacher(self, resolved: dict[str, Value]) -> TeacherSpec | None:
        """The teacher that labels a point; fills in what depends on it."""
        kind = str(resolved["labels.kind"])
        if not catalog.LABELS[kind].teacher:
            return None
        if not self.teachers:
            raise InputError(f"labels.kind is {kind}, which needs a teacher; add a teacher block")
        name = resolved.get("labels.teacher")
        if name is None:
            if len(self.teachers) > 1:
                raise InputError(
                    "labels.teacher is missing; the study has the teachers "
                    f"{one_of(self.teachers)}, so name one"
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
        """Who scores the images of a point."""
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
        if needs == "scores" and not scorer.trained_here:
            raise InputError(
                f"images.method is {method}, whose scores are recorded while a scorer trains, but "
                f"{scorer.name!r} is not trained here; add a scorer block that is"
            )
        if needs == "scores":
            assert scorer.epochs is not None
            if (asked := resolved.get("images.score_epoch", 1)) > scorer.epochs:
                raise InputError(
                    f"images.score_epoch is {asked}, but {scorer.name!r} is trained for {scorer.epochs} "
                    "epochs; choose at most that"
                )
            for name in catalog.METHODS[method].scores_of(resolved):
                least = catalog.SCORES[name].least_epochs
                if scorer.epochs < least:
                    raise InputError(
                        f"images.method is {method}, whose score {name} needs at least {least} epochs, but "
                        f"{scorer.name!r} is trained for {scorer.epochs}; raise its epochs"
                    )
        return scorer


def _without_password(uri: str) -> str:
    """`scheme://user:password@host` as `scheme://user@host`."""
    return re.sub(r"^([\w+.-]+://[^/@:]*):[^/@]*@", r"\1@", uri)


def _ranges(epochs: Sequence[int]) -> str:
    if len(epochs) > 12:
        return f"{', '.join(map(str, epochs[:5]))}, ..., {epochs[-1]}"
    return one_of(epochs).replace(" or ", " and ")


# --- reading and merging ----------------------------------------------------------------------


def load_study(
    path: str | Path,
    *,
    settings: Iterable[str] = (),
    smoke: bool = False,
) -> Study:
    """Read, merge and check the study file at `path`.

    `settings` are `KEY=VALUE` texts (dotted path from the root, value in YAML); `smoke` merges the
    file's own `smoke` block first. Raises `InputError`.
    """
    file = Path(path)
    try:
        size = file.stat().st_size
        if size > LARGEST_FILE_BYTES:
            raise InputError(
                f"{path}: it has {size:,} bytes, but a study file has at most "
                f"{LARGEST_FILE_BYTES:,}; split the study"
            )
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(
            f"{path}: there is no such study file; give a path or a name that `raydc list studies` shows"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"{path}: it cannot be read: {reason}; check the file") from None
    return parse_study(text, str(path), settings=settings, smoke=smoke)


def parse_study(text: str, source: str, *, settings: Iterable[str] = (), smoke: bool = False) -> Study:
    """As `load_study`, from the text of a file that messages call `source`."""
    raw = parse_yaml(text, source)
    if not isinstance(raw, dict):
        raise InputError(f"{source}: a study file is a mapping with name, dataset and base")
    raw = _flattened(raw, source)
    layers: list[tuple[str, dict[str, Any]]] = []
    if raw.get("smoke") and not smoke:
        parse_study(text, source, smoke=True)  # what is wrong with it is said now
    if smoke:
        override = raw.get("smoke") or {}
        if not isinstance(override, dict):
            raise InputError(f"{source}: smoke is {show(override)}, but must be a mapping of keys")
        layers.append((f"{source}: smoke", _leaves(override)))
    if chosen := _parse_settings(settings):
        layers.append((f"{source}: --set", chosen))
    for where, changes in layers:
        _refuse_rivals(changes, where)
        for path, value in changes.items():
            _set(raw, path, value, where)
    if smoke:
        raw.pop("smoke", None)
    return _checked(raw, source)


def _flattened(raw: Mapping[str, Any], source: str) -> dict[str, Any]:
    """`raw` with dotted keys in base, teacher and scorer, and the dataset as a mapping."""
    merged = dict(raw)
    for block in SEPARATE_BLOCKS:
        content = merged.get(block)
        if not isinstance(content, dict):
            continue
        if block == "teachers":
            merged[block] = {
                name: _leaves(part, f"{source}: {block}.{name}.") if isinstance(part, dict) else part
                for name, part in content.items()
            }
        else:
            merged[block] = _leaves(content, f"{source}: {block}.")
    if isinstance(merged.get("dataset"), str):
        merged["dataset"] = {"name": merged["dataset"]}
    return merged


def _leaves(content: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Nested mappings as one with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        parts = (
            {f"{key}.{k}": v for k, v in _leaves(value, f"{where}{key}.").items()}
            if isinstance(value, dict) and value
            else {key: value}
        )
        for name, part in parts.items():
            if name in flat:
                raise InputError(f"{where}{name} is given twice; keep one")
            flat[name] = part
    return flat


def _parse_settings(settings: Iterable[str]) -> dict[str, Any]:
    chosen: dict[str, Any] = {}
    for setting in settings:
        path, sign, text = setting.partition("=")
        if not sign or not path.strip():
            raise InputError(f"--set {setting}: it must be KEY=VALUE, such as base.train.steps=50")
        path = path.strip()
        if path in chosen:
            raise InputError(f"--set {path} is given twice; keep one")
        value = parse_yaml(text, f"--set {path}")
        if isinstance(value, dict) and value and path != "grid":
            chosen |= {f"{path}.{key}": part for key, part in _leaves(value).items()}
        else:
            chosen[path] = value
    return chosen


def _refuse_rivals(changes: Mapping[str, Any], where: str) -> None:
    for path in changes:
        stem, _, last = path.rpartition(".")
        if last == "epochs" and f"{stem}.steps" in changes:
            raise InputError(f"{where} gives both {stem}.epochs and {stem}.steps; keep one")
    sources = [name for name in SOURCES if f"dataset.{name}" in changes]
    if len(sources) > 1:
        raise InputError(f"{where} gives {one_of(sources)} of dataset at once; keep one")


def _set(raw: dict[str, Any], path: str, value: Any, where: str) -> None:
    """Put `value` at the dotted `path` of the file, replacing what excludes it."""
    root, _, rest = path.partition(".")
    known = _StudyFile.model_fields
    if root not in known or root == "smoke":
        raise InputError(
            f"{where} {path}: {root} is not a block of a study file; there are "
            f"{one_of(k for k in known if k != 'smoke')}{did_you_mean(root, known)}"
        )
    if not rest:
        raw[root] = {"name": value} if root == "dataset" and isinstance(value, str) else value
        return
    if root == "grid" and isinstance(raw.get("grid"), list):
        number, _, rest = rest.partition(".")
        if not number.isdigit() or int(number) >= len(raw["grid"]) or not rest:
            raise InputError(
                f"{where} {path}: grid is a list of {len(raw['grid'])}; name one by its number, "
                f"as in grid.0.images.ipc"
            )
        part = raw["grid"][int(number)]
    elif root == "teachers":
        name, _, rest = rest.partition(".")
        if raw.get(root) is None:
            raw[root] = {}
        part = raw[root].setdefault(name, {}) if isinstance(raw[root], dict) else None
    else:
        if raw.get(root) is None:
            raw[root] = {}
        part = raw[root]
    if not isinstance(part, dict) or not rest:
        raise InputError(f"{where} {path}: {root} does not hold keys of its own here; set {root}")
    if root == "dataset" and rest in SOURCES:
        for other in (*SOURCES, "root"):
            part.pop(other, None)
    stem = {"base": "train."}.get(root, "")
    for key, rival in point.RIVALS.items():
        if rest in (key, stem and key, key.removeprefix("train.")):
            part.pop(rival, None)
            part.pop(rival.removeprefix("train."), None)
            if root == "base":
                grids = raw.get("grid") or []
                for grid in grids if isinstance(grids, list) else [grids]:
                    if isinstance(grid, dict):
                        grid.pop(rival, None)
    if root == "grid" and value is None:
        part.pop(rest, None)
    else:
        part[rest] = value


# --- checking ---------------------------------------------------------------------------------


def _checked(raw: dict[str, Any], source: str) -> Study:
    try:
        file = _StudyFile.model_validate(raw)
    except ValidationError as error:
        raise InputError(f"{source}: {_pydantic_sentence(error)}") from None
    grammar = point.point_grammar()
    if file.search is not None:
        raise InputError(f"{source}: search is not available in this version; use grid")
    if isinstance(file.resources.workers, int) and file.resources.workers < 1:
        raise InputError(
            f"{source}: resources.workers is {file.resources.workers}, but must be auto or a whole "
            "number of at least 1"
        )
    base = _cast_block(grammar, file.base, f"{source}: base.")
    teachers = _teachers(grammar, file, source)
    study = Study(
        name=file.name,
        dataset=_dataset(file.dataset, source),
        teachers=teachers,
        scorer=_scorer(grammar, file.scorer, teachers, source),
        base=base,
        grids=_grids(grammar, file.grid, source),
        seeds=_seeds(file.seeds, source),
        resources=file.resources,
        tracking_uri=file.tracking.uri,
        store_uri=file.store.uri,
        source=source,
        raw=raw,
    )
    study.evaluations(grammar)
    return study


_FORMS = {
    "dataset": "a name, or one of {name: NAME}, {parquet: DIR} and {folder: DIR}",
    "seeds": "a number of replicates of at least 1 or a list of different whole numbers of at least 0",
    "resources.workers": "auto or a whole number of at least 1",
    "grid": "a mapping of dotted keys to lists, or a list of such mappings",
    "dataset.classes": "a number of classes or a list of class numbers and names",
}


def _pydantic_sentence(error: ValidationError) -> str:
    """The first problem that pydantic found, as one sentence with the dotted key."""
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    path = [str(part) for part in first["loc"] if part not in ("_DatasetFile", "str", "int")]
    path = [part for part in path if not part.startswith(("list[", "dict[", "literal["))]
    name = ".".join(path)
    models: dict[str, type[BaseModel]] = {
        "resources": Resources,
        "tracking": Tracking,
        "store": StoreConfig,
        "dataset": _DatasetFile,
    }
    model = _StudyFile if len(path) == 1 else models.get(path[0])
    if first["type"] == "extra_forbidden" and model is not None:
        block = f" of {path[0]}" if len(path) > 1 else ""
        known = list(model.model_fields)
        hint = did_you_mean(path[-1], known)
        return f"{name} is not a key{block}; it has {one_of(known).replace(' or ', ' and ')}{hint}"
    if first["type"] == "missing":
        return f"{name} is missing; a study needs name, dataset and base"
    if name == "name":
        return (
            f"name is {show(first['input'])}, but must be letters, digits, '.', '_' and '-', "
            "beginning with a letter or a digit, at most 100 of them"
            + ("; write a number in quotes" if isinstance(first["input"], int | float) else "")
        )
    if name in _FORMS:
        return f"{name} is {show(first['input'])}, but must be {_FORMS[name]}"
    message = first["msg"].removeprefix("Input should be ").replace("Input should", "should")
    return f"{name} is {show(first['input'])}, but must be {message}"


def _cast_block(grammar: Grammar, given: Mapping[str, Any], where: str, prefix: str = "") -> dict[str, Value]:
    """Canonical values of dotted keys; both rivals in one layer are an error."""
    values = {}
    for name, value in given.items():
        values[prefix + name] = _cast(grammar, prefix + name, value, where, prefix)
    for key, rival in point.RIVALS.items():
        if values.get(key) is not None and values.get(rival) is not None:
            raise InputError(
                f"{where}{key.removeprefix(prefix)} and {rival.removeprefix(prefix)} exclude each "
                "other; keep one"
            )
    return values


def _cast(grammar: Grammar, name: str, given: Value, where: str, prefix: str = "") -> Value:
    if name not in grammar.keys:
        raise InputError(point.key_error(grammar, name, where))
    try:
        return grammar.keys[name].cast(given)
    except ValueError as error:
        raise InputError(f"{where}{name.removeprefix(prefix)} {error}") from None


def _grids(
    grammar: Grammar, given: dict[str, Any] | list[dict[str, Any]] | None, source: str
) -> tuple[dict[str, tuple[Value, ...]], ...]:
    if not given:
        return ({},)
    listed = given if isinstance(given, list) else [given]
    grids = []
    for i, grid in enumerate(listed):
        where = f"{source}: grid.{i}." if isinstance(given, list) else f"{source}: grid."
        values: dict[str, tuple[Value, ...]] = {}
        for name, choices in grid.items():
            if name not in grammar.keys:
                raise InputError(point.key_error(grammar, name, where))
            if isinstance(choices, dict):
                raise InputError(f"{where}{name} is a mapping, but a grid has dotted keys, each with a list")
            if choices == []:
                raise InputError(
                    f"{where}{name} is an empty list, but must have at least one value; take the "
                    "key out or give a value"
                )
            listed_values = choices if isinstance(choices, list) else [choices]
            cast = [_cast(grammar, name, value, where) for value in listed_values]
            values[name] = tuple(dict.fromkeys(cast))
        for key, rival in point.RIVALS.items():
            if key in values and rival in values:
                raise InputError(f"{where}{key} and {rival} exclude each other; keep one")
        grids.append(values)
    return tuple(grids)


def _seeds(given: int | list[int], source: str) -> tuple[int, ...]:
    if isinstance(given, list):
        if not given or min(given) < 0 or max(given) > LARGEST or len(set(given)) < len(given):
            raise InputError(
                f"{source}: seeds is {show(given)}, but must be a number of replicates of at least "
                "1 or a list of different whole numbers of at least 0"
            )
        return tuple(given)
    if not 1 <= given <= 1_000_000:
        raise InputError(
            f"{source}: seeds is {given}, but must be a number of replicates of at least 1 or a "
            "list of different whole numbers of at least 0"
        )
    return tuple(range(given))


def _dataset(file: _DatasetFile, source: str) -> DatasetSpec:
    sources = [name for name in SOURCES if getattr(file, name) is not None]
    if len(sources) != 1:
        raise InputError(
            f"{source}: dataset gives {len(sources)} of {one_of(SOURCES)}, but must give exactly one"
        )
    kind = sources[0]
    location = getattr(file, kind)
    default_fraction = 0.1
    if kind == "name":
        try:
            default_fraction = catalog.DATASETS[location].val_fraction
        except InputError as error:
            raise InputError(
                f"{source}: dataset.name: {error}, or give dataset.parquet or dataset.folder"
            ) from None
    elif file.root is not None:
        raise InputError(f"{source}: dataset.root goes with dataset.name only; take it out")
    if kind == "hub":
        raise InputError(f"{source}: dataset.hub is not available in this version; use dataset.parquet")
    classes = file.classes
    if isinstance(classes, int) and classes < 2:
        raise InputError(f"{source}: dataset.classes is {classes}, but must be at least 2")
    if isinstance(classes, list) and (len(classes) < 2 or len(set(classes)) < len(classes)):
        raise InputError(
            f"{source}: dataset.classes is {show(classes)}, but must be at least two different classes"
        )
    return DatasetSpec(
        name=location if kind == "name" else Path(location).name or location,
        source="named" if kind == "name" else kind,
        location=file.root if kind == "name" else location,
        resolution=file.resolution,
        zca=file.zca,
        val_fraction=default_fraction if file.val_fraction is None else file.val_fraction,
        classes=tuple(classes) if isinstance(classes, list) else classes,
        train_limit=file.train_limit,
        cache_limit_gib=file.cache_limit_gib,
    )


def _teachers(grammar: Grammar, file: _StudyFile, source: str) -> dict[str, TeacherSpec]:
    if file.teacher is not None and file.teachers is not None:
        raise InputError(f"{source}: teacher and teachers exclude each other; keep one")
    if file.teacher is not None:
        return {"teacher": teacher_spec(grammar, "teacher", file.teacher, f"{source}: teacher.")}
    teachers = {}
    for name, given in (file.teachers or {}).items():
        teachers[name] = teacher_spec(grammar, name, given, f"{source}: teachers.{name}.")
    return teachers


def _scorer(
    grammar: Grammar,
    given: str | dict[str, Any] | None,
    teachers: Mapping[str, TeacherSpec],
    source: str,
) -> TeacherSpec | None:
    if given is None:
        return None
    if isinstance(given, str):
        if given not in teachers:
            raise InputError(
                f"{source}: scorer is {given!r}, but must be a block or the name of a teacher"
                f" ({one_of(teachers) or 'there is none'})"
            )
        return teachers[given]
    return teacher_spec(grammar, "scorer", given, f"{source}: scorer.")


def teacher_spec(grammar: Grammar, name: str, given: Mapping[str, Any], where: str) -> TeacherSpec:
    """The teacher that a block describes; `where` starts every message."""
    own = {key: value for key, value in given.items() if key in TEACHER_ONLY.keys}
    trained = {key: value for key, value in given.items() if key not in own}
    train_block = grammar.block("train")
    excluded = ("steps", "test_every", "view_seed")
    for key in trained:
        if key not in train_block or key in excluded:
            known = [k for k in (*TEACHER_ONLY.keys, *train_block) if k not in excluded]
            reason = "; teachers are trained for epochs" if key == "steps" else did_you_mean(key, known)
            raise InputError(f"{where}{key} is not a key of a teacher; there are {one_of(known)}{reason}")
    cast_own = {key: _cast(TEACHER_ONLY, key, value, where) for key, value in own.items()}
    if "arch" not in cast_own:
        raise InputError(f"{where}arch is missing; it must be {point.ARCH.describe()}")
    elsewhere = [key for key in ("checkpoint", "weights") if cast_own.get(key) is not None]
    if elsewhere:
        misfits = [key for key in (*trained, "keep", "count") if key in given] + elsewhere[1:]
        if misfits:
            raise InputError(
                f"{where}{misfits[0]} does not go with {elsewhere[0]}, since nothing is trained; "
                "take one of them out"
            )
        return replace(TeacherSpec(name, cast_own["arch"]), **{elsewhere[0]: cast_own[elsewhere[0]]})
    train = _cast_block(grammar, trained, where, prefix="train.")
    if train.get("train.loss") not in (None, "ce"):
        raise InputError(f"{where}loss is {train['train.loss']}, but a teacher learns hard labels: ce")
    train.setdefault("train.recipe", TEACHER_DEFAULT_RECIPE)
    resolved = _resolve_training(grammar, train, where)
    epochs = resolved["train.epochs"]
    keep = cast_own.get("keep")
    if isinstance(keep, tuple) and (late := [epoch for epoch in keep if epoch > epochs]):
        raise InputError(
            f"{where}keep has {late[0]}, but the teacher is trained for {epochs} epochs; choose from "
            f"0 to {epochs}"
        )
    return TeacherSpec(
        name=name,
        arch=cast_own["arch"],
        train=resolved,
        keep=tuple(range(epochs + 1)) if keep == "all" else keep and tuple(sorted(set(keep))),
        count=cast_own.get("count", 1),
    )


def _resolve_training(grammar: Grammar, given: Point, where: str) -> dict[str, Value]:
    """Every `train` key of a network that learns hard labels."""
    defaults = point.recipe_values(given)
    if "train.steps" in defaults:
        raise InputError(
            f"{where}recipe is {given['train.recipe']}, which counts steps; teachers are trained for "
            "epochs, so give epochs"
        )
    resolved: dict[str, Value] = {}
    context = {"labels.kind": "hard"}
    for name, key in ((k.name, k) for k in grammar.block("train").values()):
        if not key.applies(resolved | context):
            if name in given and name != "train.loss":
                raise InputError(
                    f"{where}{name.removeprefix('train.')} ({show(given[name])}) does not apply; it "
                    f"applies where {key.conditions().replace('train.', '')}"
                )
            continue
        value = given.get(name, defaults.get(name, key.default))
        if value is not None:
            resolved[name] = value
    return resolved
