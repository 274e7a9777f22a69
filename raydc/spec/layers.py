"""Layers of a study: the file, its `smoke` block and `--set`; later layers override earlier ones by key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from raydc.errors import InputError, did_you_mean, one_of
from raydc.spec import point
from raydc.spec.keys import show
from raydc.spec.search import KINDS
from raydc.spec.study_file import SOURCES, StudyFile
from raydc.spec.yaml_file import parse_yaml

SEPARATE_BLOCKS = ("base", "teacher", "teachers", "scorer")
"""Blocks whose keys may be written nested or dotted."""


def merged(raw: Mapping[str, Any], source: str, settings: Iterable[str], smoke: bool) -> dict[str, Any]:
    """`raw` merged with its `smoke` block, if requested, and then with the `KEY=VALUE` settings."""
    content = flattened(raw, source)
    layers: list[tuple[str, dict[str, Any]]] = []
    if smoke:
        override = content.get("smoke") or {}
        if not isinstance(override, dict):
            raise InputError(f"{source}: smoke is {show(override)}, but must be a mapping of keys")
        layers.append((f"{source}: smoke", leaves(override)))
    if chosen := parse_settings(settings):
        layers.append((f"{source}: --set", chosen))
    for where, changes in layers:
        refuse_exclusive_keys(changes, where)
        for path, value in changes.items():
            put(content, path, value, where)
    if smoke:
        content.pop("smoke", None)
    return content


def flattened(raw: Mapping[str, Any], source: str) -> dict[str, Any]:
    """`raw` with dotted keys in base, teacher and scorer, and the dataset as a mapping."""
    merged = dict(raw)
    for block in SEPARATE_BLOCKS:
        content = merged.get(block)
        if not isinstance(content, dict):
            continue
        if block == "teachers":
            merged[block] = {
                name: leaves(part, f"{source}: {block}.{name}.") if isinstance(part, dict) else part
                for name, part in content.items()
            }
        else:
            merged[block] = leaves(content, f"{source}: {block}.")
    if isinstance(merged.get("dataset"), str):
        merged["dataset"] = {"name": merged["dataset"]}
    return merged


def leaves(content: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Nested mappings as one with dotted keys; search ranges, such as {int: [1, 30]}, stay mappings."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        parts = (
            {f"{key}.{k}": v for k, v in leaves(value, f"{where}{key}.").items()}
            if isinstance(value, dict) and value and not value.keys() & {*KINDS}
            else {key: value}
        )
        for name, part in parts.items():
            if name in flat:
                raise InputError(f"{where}{name} is given twice; keep one")
            flat[name] = part
    return flat


def parse_settings(settings: Iterable[str]) -> dict[str, Any]:
    chosen: dict[str, Any] = {}
    for setting in settings:
        path, sign, text = setting.partition("=")
        if not sign or not path.strip():
            raise InputError(f"--set {setting}: it must be KEY=VALUE, such as base.train.steps=50")
        path = path.strip()
        if path in chosen:
            raise InputError(f"--set {path} is given twice; keep one")
        value = parse_yaml(text, f"--set {path}")
        if isinstance(value, dict) and path != "grid":
            chosen |= leaves({path: value})
        else:
            chosen[path] = value
    return chosen


def refuse_exclusive_keys(changes: Mapping[str, Any], where: str) -> None:
    for path in changes:
        stem, _, last = path.rpartition(".")
        if last == "epochs" and f"{stem}.steps" in changes:
            raise InputError(f"{where} gives both {stem}.epochs and {stem}.steps; keep one")
    sources = [name for name in SOURCES if f"dataset.{name}" in changes]
    if len(sources) > 1:
        raise InputError(f"{where} gives {one_of(sources)} of dataset at once; keep one")


def put(raw: dict[str, Any], path: str, value: Any, where: str) -> None:
    """Set the dotted `path` of the file to `value`, and remove the keys that exclude it."""
    root, _, rest = path.partition(".")
    _check_root(root, path, where)
    if not rest:
        raw[root] = {"name": value} if root == "dataset" and isinstance(value, str) else value
        return
    if root == "search":
        _put_search(raw, rest, value, where)
        return
    part, rest = _part_of(raw, root, path, rest, where)
    _remove_excluded(raw, part, root, rest)
    if root == "grid" and value is None:
        part.pop(rest, None)
    else:
        part[rest] = value


def _check_root(root: str, path: str, where: str) -> None:
    known = StudyFile.model_fields
    if root == "smoke":
        raise InputError(f"{where} {path}: the smoke block is merged by --smoke; set the keys themselves")
    if root not in known:
        raise InputError(
            f"{where} {path}: {root} is not a block of a study file; choose "
            f"{one_of(k for k in known if k != 'smoke')}{did_you_mean(root, known)}"
        )


def _part_of(raw: dict[str, Any], root: str, path: str, rest: str, where: str) -> tuple[dict[str, Any], str]:
    """The mapping of the file that holds the key of a path, and the key inside this mapping."""
    if root == "grid" and isinstance(raw.get("grid"), list):
        number, _, rest = rest.partition(".")
        if not number.isdigit() or int(number) >= len(raw["grid"]) or not rest:
            raise InputError(
                f"{where} {path}: grid is a list of {len(raw['grid'])}; choose one by its number, "
                f"as in grid.0.images.ipc"
            )
        part = raw["grid"][int(number)]
    else:
        if raw.get(root) is None:
            raw[root] = {}
        part = raw[root]
        if root == "teachers":
            name, _, rest = rest.partition(".")
            part = part.setdefault(name, {}) if isinstance(part, dict) else None
    if not isinstance(part, dict) or not rest:
        raise InputError(f"{where} {path}: {root} does not hold keys; set {root}")
    return part, rest


def _remove_excluded(raw: dict[str, Any], part: dict[str, Any], root: str, key: str) -> None:
    """Remove the keys that the key which is set excludes."""
    if root == "dataset" and key in SOURCES:
        for other in (*SOURCES, "root"):
            part.pop(other, None)
    for one, other in point.EXCLUSIVE_KEYS.items():
        if key not in (one, one.removeprefix("train.")):
            continue
        part.pop(other, None)
        part.pop(other.removeprefix("train."), None)
        if root == "base":
            grids = raw.get("grid") or []
            for grid in grids if isinstance(grids, list) else [grids]:
                if isinstance(grid, dict):
                    grid.pop(other, None)


def _put_search(raw: dict[str, Any], path: str, value: Any, where: str) -> None:
    """Set a path inside `search` to `value`; null removes a key of its space."""
    *blocks, key = path.split(".", 2)
    if (blocks and blocks[-1] == "space") or len(blocks) < 2:
        part = raw
        for block in ("search", *blocks):
            if not isinstance(part.get(block), dict):
                part[block] = {}
            else:
                part[block] = dict(part[block])
            part = part[block]
        if value is None and blocks[-1:] == ["space"]:
            part.pop(key, None)
        else:
            part[key] = value
        return
    raise InputError(f"{where} search.{path}: {blocks[-1]} does not hold keys; set {blocks[-1]}")
