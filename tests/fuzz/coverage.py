"""One target under libFuzzer, guided by the branches of raydc that inputs reach.

python -m tests.fuzz.coverage TARGET CORPUS [libFuzzer's options]
"""

from __future__ import annotations

import os
import shutil
import sys
import warnings

import atheris

with atheris.instrument_imports(include=["raydc"]):
    from tests.fuzz.targets import TARGETS, allowed, scratch


def main() -> None:
    warnings.simplefilter("ignore")
    target = TARGETS[sys.argv.pop(1)]

    def one(content: bytes) -> None:
        allowed(target, content)

    try:
        atheris.Setup(sys.argv, one)
        atheris.Fuzz()
    finally:
        shutil.rmtree(scratch(), ignore_errors=True)


if __name__ == "__main__":
    # libFuzzer ends the process; libraries' threads would keep it waiting.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
