"""The state of CMA-ES in a search's storage, which Optuna pickles, and unpickles for the next point.

A storage may come with the study folder of another user. Every state in it is therefore unpickled here first,
with only the optimizer and NumPy arrays allowed; a storage with anything else is refused.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from raydc.errors import InputError

STATE = "cma:optimizer:"
"""Prefix of the trial attributes that hold the parts of a state, in hexadecimal digits."""
_KNOWN = {
    ("cmaes._cma", "CMA"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"it imports {module}.{name}")
        return super().find_class(module, name)


def check_states(trials: Iterable[FrozenTrial], path: Path) -> None:
    """Raise `InputError` if the storage at `path` holds a state that is not a CMA-ES optimizer."""
    for trial in trials:
        parts = {key: text for key, text in trial.system_attrs.items() if key.startswith(STATE)}
        if not parts:
            continue
        try:
            text = "".join(parts[f"{STATE}{number}"] for number in range(len(parts)))
            _Unpickler(io.BytesIO(bytes.fromhex(text))).load()
        except Exception as error:  # a damaged pickle raises whatever its parts raise
            raise InputError(
                f"{path}: trial {trial.number} holds something other than a CMA-ES state ({error}); "
                "do not trust its source, and start a new search with another --out"
            ) from None
