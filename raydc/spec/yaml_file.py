"""Study files as YAML, read safely.

The core schema of YAML 1.2 is used: 1e-3 is a number, `no` and dates are strings. Tags, duplicate keys, keys
that are not strings and aliases that expand to too many values are errors.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from raydc.errors import InputError

LARGEST_FILE_BYTES = 1 << 20
MOST_NODES = 200_000
MOST_LEVELS = 100
"""The parsing time of PyYAML is quadratic in the number of levels: half a minute for 20,000."""


def _problem(problem: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's scalars, no tags and a bounded depth."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012 (PyYAML's own design)
    levels = 0
    """Nesting depth of the node that is being read."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise _problem(f"the tag {tag} is not allowed; write plain values", event.start_mark)
        if self.levels == MOST_LEVELS:
            raise _problem(f"it is nested too deeply (at most {MOST_LEVELS} levels)", event.start_mark)
        self.levels += 1
        node = super().compose_node(parent, index)
        self.levels -= 1
        return node


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", "~nN"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+0123456789.",
    ),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), [*_first, ""])


class _Dumper(yaml.SafeDumper):
    """Writes YAML that `_Loader` reads back unchanged: strings that look like numbers are quoted."""

    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers


def dump_yaml(content: Any) -> str:
    """`content` as YAML; `parse_yaml` returns an equal value."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node))
    if len(text) > 30:
        raise _problem("a whole number has more than 30 digits", node.start_mark)
    return int(text)


_Loader.add_constructor("tag:yaml.org,2002:int", _integer)


def _check(node: yaml.Node, open_nodes: set[int], sizes: dict[int, int]) -> int:
    """Expanded size of `node`; raises an error for duplicate keys, keys that are not strings and cycles."""
    if id(node) in open_nodes:
        raise _problem("an alias contains itself", node.start_mark)
    if id(node) in sizes:
        return sizes[id(node)]
    open_nodes.add(id(node))
    size = 1
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
                raise _problem("a key is not a string", key.start_mark)
            if key.value in seen:
                raise _problem(f"the key {key.value!r} is given twice; keep one", key.start_mark)
            seen.add(key.value)
            size += 1 + _check(value, open_nodes, sizes)
    elif isinstance(node, yaml.SequenceNode):
        size += sum(_check(value, open_nodes, sizes) for value in node.value)
    if size > MOST_NODES:
        raise _problem(f"it has more than {MOST_NODES:,} values when its aliases are expanded", None)
    open_nodes.discard(id(node))
    sizes[id(node)] = size
    return size


def read_text(path: Path, most_bytes: int | None = None) -> str:
    """The text of a file; raises `InputError` if it cannot be read, is not UTF-8 or is too large."""
    try:
        with path.open("rb") as file:
            content = file.read() if most_bytes is None else file.read(most_bytes + 1)
    except OSError as error:
        raise InputError(f"{path}: it cannot be read: {error.strerror}; check the file") from None
    if most_bytes is not None and len(content) > most_bytes:
        raise InputError(f"{path}: it has more than {most_bytes:,} bytes; split the study")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path}: it cannot be read: it is not UTF-8 text; check the file") from None


def parse_yaml(text: str, where: str) -> Any:
    """The value that `text` holds; `InputError` gives `where`, the line and the problem."""
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check(node, set(), {})
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        raise InputError(f"{where}: {_sentence(error)}") from None
    finally:
        if loader is not None:
            loader.dispose()


def _sentence(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = error.problem or "this is not YAML"
        if problem.startswith("but ") and error.context:
            problem = f"{error.context}, {problem}"
        return f"{place}{problem}"
    return " ".join(str(error).split())
