"""One target under libFuzzer, guided by the branches that inputs reach in raydc and Pillow.

python -m tests.fuzz.coverage TARGET CORPUS [libFuzzer's options]
"""

from __future__ import annotations

import hashlib
import os
import sys
import warnings
from pathlib import Path

import atheris
from torch._weights_only_unpickler import Unpickler

with atheris.instrument_imports(include=["raydc", "PIL"]):
    from tests.fuzz.targets import TARGETS, allowed

# Of torch, which takes minutes as a whole, only what reads pickles.
Unpickler.load = atheris.instrument_func(Unpickler.load)


def main() -> None:
    warnings.simplefilter("ignore")
    target = TARGETS[sys.argv.pop(1)]
    prefix = next(option for option in sys.argv if option.startswith("-artifact_prefix="))
    crashes = Path(prefix.partition("=")[2])

    def one(content: bytes) -> None:
        try:
            allowed(target, content)
        except Exception as error:
            # libFuzzer itself keeps inputs that hang, fill the memory or end the process.
            (crashes / f"{type(error).__name__}-{hashlib.sha256(content).hexdigest()[:12]}").write_bytes(
                content
            )
            raise

    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    # libFuzzer ends the process; libraries' threads would keep it waiting.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
