"""The state of CMA-ES in a search's storage, which Optuna keeps as a pickle and opens when it asks.

A storage may come from somebody else with the folder of their study. So every state in it is opened here
first, with nothing but the optimizer and NumPy's arrays to be found, and a storage with another is refused.
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
"""Beginning of the attributes that hold the parts of a state, in hexadecimal digits."""
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
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module, name)


def check_states(trials: Iterable[FrozenTrial], path: Path) -> None:
    """Raise `InputError` if the storage at `path` holds a state that is no optimizer's."""
    for trial in trials:
        parts = {key: text for key, text in trial.system_attrs.items() if key.startswith(STATE)}
        if not parts:
            continue
        try:
            text = "".join(parts[f"{STATE}{number}"] for number in range(len(parts)))
            _Unpickler(io.BytesIO(bytes.fromhex(text))).load()
        except Exception as error:  # a damaged pickle raises whatever its parts raise
            raise InputError(
                f"{path}: trial {trial.number} holds something else than a state of CMA-ES ({error}); "
                "trust nobody who gave it, and search anew with another --out"
            ) from None
