"""Names of evaluations: what tells one from the others of its study."""

from __future__ import annotations

from collections.abc import Sequence

from raydc.spec.result import Row

LONGEST_NAME = 250
LEADING_KEYS = ("images.method", "images.ipc", "labels.kind")
"""What every name begins with."""
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
    """`el2n ipc 10 soft epoch 30 T4 seed 0`: what tells this evaluation from the others of its study.

    `varying` are the keys that tell the study's configurations apart.
    """
    parts = []
    for key in dict.fromkeys((*LEADING_KEYS, *varying)):
        value = row.get(key)
        if value is not None:
            text = f"{value:g}" if isinstance(value, float) else str(value)
            parts.append(_SHORT.get(key, f"{key.rpartition('.')[2]} {{}}").format(text))
    return " ".join([*parts, f"seed {row['seed']}"])[:LONGEST_NAME]
