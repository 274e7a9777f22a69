"""The reference pages of docs/, made from the grammar and the catalogue: `python -m raydc.reference`.

A test compares the committed pages with what this module makes.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path

from raydc.spec import catalog
from raydc.spec.blocks import TEACHER_ONLY
from raydc.spec.keys import DERIVED, REQUIRED, Key
from raydc.spec.point import BLOCKS, flat_value, point_grammar
from raydc.spec.registry import Entry
from raydc.spec.search_block import OPTUNA
from raydc.spec.study_file import Resources
from raydc.spec.tracking_block import KIND

HEADER = "<!-- Made by `python -m raydc.reference`; change the schema, not this page. -->\n\n"


def _default(key: Key) -> str:
    if key.default is REQUIRED:
        return "required"
    if key.default is DERIVED:
        return "the recipe's"
    if key.default is None:
        return "null"
    text = str(flat_value(key.default))
    return f"`{text.lower() if isinstance(key.default, bool) else text}`"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |"]
    lines.append("|" + " --- |" * (lines[0].count("|") - 1))
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _keys(keys: Iterable[Key]) -> str:
    return _table(
        ("key", "allowed", "default", "applies", "meaning"),
        (
            (f"`{key.name}`", key.kind.describe(), _default(key), key.conditions(), key.summary)
            for key in keys
        ),
    )


def study_file() -> str:
    """docs/study-file.md."""
    grammar = point_grammar()
    parts = [
        HEADER,
        "# The study file\n\n",
        "One YAML file says what is evaluated. `base` is one evaluation, `grid` crosses lists of values "
        "(a list of grids is their union), `seeds` are the replicates, `teacher` says who labels. Keys "
        "that do not apply to a point fall away; a key that applies to no point is an error.\n\n",
        "Exactly one of `train.epochs` and `train.steps` counts: the later of recipe, base, grid and "
        "`--set` replaces the other.\n\n",
    ]
    for block in BLOCKS:
        parts += [f"## {block}\n\n", _keys(grammar.block(block).values()), "\n"]
    parts += [
        "## teacher, teachers.NAME, scorer\n\n",
        "Every key of `train` but steps, test_every and view_seed (default recipe: `mtt-expert`), and:\n\n",
        _keys(TEACHER_ONLY.keys.values()),
        "\n## search.optuna\n\n",
        "Instead of `grid`: Optuna asks for points of a space (docs/search.md).\n\n",
        _keys(OPTUNA.keys.values()),
        "\n## resources\n\n",
        _table(
            ("key", "default", "meaning"),
            (
                (f"`{name}`", f"`{str(field.default).lower()}`", " ".join(str(field.description).split()))
                for name, field in Resources.model_fields.items()
            ),
        ),
        "\n## tracking\n\n",
        "Which tracker records the study, beside the ledger in the study's folder. A plugin can add trackers "
        "(docs/mlflow.md).\n\n",
        _table(
            ("key", "allowed", "default", "tracker", "meaning"),
            (
                (f"`{key.name}`", key.kind.describe(), _default(key), owners, key.summary)
                for key, owners in _tracking_keys()
            ),
        ),
    ]
    return "".join(parts)


def _tracking_keys() -> Iterator[tuple[Key, str]]:
    """Keys of the `tracking` block, each with the trackers that have it."""
    yield KIND, "all"
    for key in dict.fromkeys(key for entry in catalog.TRACKERS for key in entry.keys):
        yield key, ", ".join(entry.name for entry in catalog.TRACKERS if key in entry.keys)


def catalogue() -> str:
    """docs/catalogue.md."""

    def listed(entries: Iterable[Entry]) -> str:
        return _table(("name", "what it is"), ((f"`{e.name}`", e.summary) for e in entries))

    parts = [HEADER, "# The catalogue\n\n", "What `raydc list` prints, with the sources of the recipes.\n\n"]
    for title, entries in (
        ("Datasets", catalog.DATASETS),
        ("Methods", catalog.METHODS),
        ("Labels", catalog.LABELS),
        ("Augmentations", catalog.AUGMENTATIONS),
        ("Trackers", catalog.TRACKERS),
    ):
        parts += [f"## {title}\n\n", listed(entries), "\n"]
    parts.append("## Recipes\n\n")
    for recipe in catalog.RECIPES:
        values = ((f"`{key}`", f"`{flat_value(value)}`") for key, value in recipe.values.items())
        parts += [
            f"### {recipe.name}\n\n{recipe.summary}. Source: {recipe.path}.\n\n"
            + (f"{recipe.note}\n\n" if recipe.note else ""),
            _table(("key", "value"), values),
            "\n",
        ]
    return "".join(parts).rstrip() + "\n"


PAGES = {"study-file.md": study_file, "catalogue.md": catalogue}


def main() -> None:
    """Write the pages into docs/."""
    argparse.ArgumentParser(description=main.__doc__).parse_args()
    folder = Path(__file__).parents[2] / "docs"
    for name, make in PAGES.items():
        (folder / name).write_text(make(), encoding="utf-8")


if __name__ == "__main__":
    main()
