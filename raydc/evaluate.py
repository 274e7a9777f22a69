"""`python -m raydc.evaluate FILE --data DIR --out DIR`: runs evaluations that `raydc plan --export` wrote.

The code is in `raydc.worker.exported`; it needs torch, torchvision, NumPy and pyarrow only.
"""

from __future__ import annotations

import sys

from raydc.worker.exported import main

if __name__ == "__main__":
    sys.exit(main())
