"""Names of evaluations, which distinguish the evaluations of a study."""

from __future__ import annotations

from collections.abc import Sequence

from raydc.spec.result import Row

LONGEST_NAME = 250
LEADING_KEYS = ("images.method", "images.ipc", "labels.kind")
"""Keys at the beginning of every name."""
_SHORT = {
    "images.method": "{}",
    "images.ipc": "ipc {}",
    "labels.kind": "{}",
    "labels.teacher_epoch": "epoch {}",
    "labels.temperature": "T{}",
    "student.arch": "{}",
    "train.recipe": "{}",
}


def run_name(row: Row, varying: Sequence[str] = ()) -> str:
    """The name of an evaluation, such as `el2n ipc 10 soft epoch 30 T4 seed 0`.

    `varying`: keys whose values differ between the study's configurations.
    """
    parts = []
    for key in dict.fromkeys((*LEADING_KEYS, *varying)):
        value = row.get(key)
        if value is not None:
            text = f"{value:g}" if isinstance(value, float) else str(value)
            parts.append(_SHORT.get(key, f"{key.rpartition('.')[2]} {{}}").format(text))
    return " ".join([*parts, f"seed {row['seed']}"])[:LONGEST_NAME]
