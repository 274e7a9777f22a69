"""What a search knows of an evaluation without training it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from raydc.spec.plan import Planned
from raydc.spec.result import FAILED, FINISHED, Row, reused, untested
from raydc.tracking.ledger import Ledger

if TYPE_CHECKING:
    pass


class Answers:
    """What is known of an evaluation without training it: the ledger, then results of other studies."""

    def __init__(self, ledger: Ledger, others: Mapping[str, Row], study: str) -> None:
        self._ledger = ledger
        self._others = others
        self._study = study
        self.taken_over = 0

    def __call__(self, planned: Planned) -> Row | None:
        row = self._ledger.rows.get(planned.id)
        if row is not None and _answers(row, planned):
            return row
        if (other := self._others.get(planned.id)) is None:
            return None
        taken = reused(other, planned, self._study)
        self._ledger.append([taken])
        self.taken_over += 1
        return taken


def _answers(row: Row, planned: Planned) -> bool:
    """Whether a row of the ledger is a result of `planned`.

    A point that failed has failed, while a replicate of the winner is tried again by the next run; one that
    a scheduler stopped counts for its own point only.
    """
    if row["status"] == FINISHED:
        return not planned.tested or not untested(row)
    if planned.tested:
        return False
    assert planned.origin is not None
    return row["status"] == FAILED or row.get("trial") == planned.origin.trial
