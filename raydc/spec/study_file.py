"""The blocks of a study file and their keys, checked by pydantic; no other module uses pydantic.

The contents of `base`, `grid` and the teachers are checked by raydc's own grammar (raydc.spec.blocks), those
of `search` and `tracking` by raydc.spec.search_block and raydc.spec.tracking_block.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from raydc.errors import InputError, did_you_mean, one_of
from raydc.spec.keys import show

SOURCES = ("name", "parquet", "folder", "hub")
"""Keys of `dataset` that give the location of the data; exactly one is given."""


def _ordered(bounds: list[int]) -> list[int]:
    if bounds[0] > bounds[1]:
        raise ValueError("the first is above the second")
    return bounds


AtLeastOne = Annotated[int, Field(ge=1)]
Bounds = Annotated[list[AtLeastOne], Field(min_length=2, max_length=2), AfterValidator(_ordered)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)


class Resources(_Part):
    """The resources that a run may use."""

    workers: Literal["auto"] | int = Field("auto")
    """Number of students trained at the same time; auto: one per CPU core, or 1 / gpu_share per GPU."""
    threads: int = Field(1, ge=1)
    """CPU threads per student."""
    teacher_workers: int = Field(1, ge=1)
    """Processes that train one teacher together, each on its own GPU, or on a CPU core without GPUs."""
    teacher_replicas: AtLeastOne | Literal["auto"] | Bounds = 1
    """Number of teacher actors. [N, M]: N, and up to M while label passes wait and a GPU (or a CPU core
    without GPUs) is free; auto: at least 1, limited only by the free GPUs."""
    gpu_share: float = Field(1.0, gt=0, le=1)
    """Fraction of a GPU that one worker uses."""
    evaluation_timeout_seconds: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Time limit of one evaluation; null sets no limit."""
    retries: int = Field(2, ge=0)
    """How often an evaluation is retried after its worker died or an artifact that it needs was lost."""

    def replicas(self, places: int) -> tuple[int, int]:
        """Smallest and largest number of teacher actors, where at most `places` can run at the same time."""
        replicas = self.teacher_replicas
        if isinstance(replicas, int):
            return replicas, replicas
        fewest, most = [1, places] if replicas == "auto" else replicas
        return fewest, max(fewest, min(most, places))


class StoreConfig(_Part):
    """Location of the artifacts."""

    uri: str | None = None
    """Folder, or a URI that pyarrow.fs supports; null: `.raydc-store` next to the output folder."""


class DatasetFile(_Part):
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


class StudyFile(_Part):
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    dataset: DatasetFile
    teacher: dict[str, Any] | None = None
    teachers: dict[str, dict[str, Any]] | None = None
    scorer: str | dict[str, Any] | None = None
    base: dict[str, Any]
    grid: dict[str, Any] | list[dict[str, Any]] | None = None
    seeds: int | list[int] = 1
    search: dict[str, Any] | None = None
    resources: Resources = Resources()
    tracking: dict[str, Any] = {}
    store: StoreConfig = StoreConfig()
    smoke: dict[str, Any] = {}


def framed(raw: dict[str, Any], source: str) -> StudyFile:
    """The checked blocks of a study file; `InputError` gives `source`, the dotted key and what is allowed."""
    try:
        return StudyFile.model_validate(raw)
    except ValidationError as error:
        raise InputError(f"{source}: {_pydantic_sentence(error)}") from None


MOST_REPLICATES = 1_000_000
SEEDS = (
    f"a number of replicates from 1 to {MOST_REPLICATES:,} or a list of different whole numbers "
    "of at least 0 and below 2**63"
)
_FORMS = {
    "dataset": "a name, or one of {name: NAME}, {parquet: DIR} and {folder: DIR}",
    "seeds": SEEDS,
    "resources.workers": "auto or a whole number of at least 1",
    "resources.teacher_replicas": "auto, a whole number of at least 1, or [N, M] with N at most M",
    "grid": "a mapping of dotted keys to lists, or a list of such mappings",
    "tracking": "a mapping such as {kind: mlflow, uri: URI}",
    "search": "a mapping {optuna: {trials: N, space: {...}}}",
    "dataset.classes": "a number of classes or a list of class numbers and names",
}


def _pydantic_sentence(error: ValidationError) -> str:
    """The first problem that pydantic found, as one sentence with the dotted key."""
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    path = [str(part) for part in first["loc"] if part not in ("DatasetFile", "str", "int")]
    path = [
        part
        for part in path
        if not part.startswith(("list[", "dict[", "literal[", "function-after[", "constrained-"))
    ]
    name = ".".join(path)
    models: dict[str, type[BaseModel]] = {
        "resources": Resources,
        "store": StoreConfig,
        "dataset": DatasetFile,
    }
    model = StudyFile if len(path) == 1 else models.get(path[0])
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
