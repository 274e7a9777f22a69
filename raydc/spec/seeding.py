"""Seeds by role.

Every random choice of a study has a role (which images, which initial weights, which views). Its seed
depends on the role and on the relevant fields only. So image sets are equal across temperatures, students of
one replicate start from equal weights, and results do not depend on the order of execution. The clock is
never used as a seed.
"""

from __future__ import annotations

import hashlib
import json


def seed_of(role: str, *fields: object) -> int:
    """A seed in [0, 2**63) for `role`, a pure function of the JSON of its `fields`."""
    text = json.dumps([role, *fields], sort_keys=True, separators=(",", ":"), allow_nan=False)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
