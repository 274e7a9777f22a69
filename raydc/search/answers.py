"""Known results of a search's evaluations, which need no training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from raydc.spec.plan import Planned
from raydc.spec.result import FAILED, FINISHED, Row, reused, untested
from raydc.tracking.ledger import Ledger

if TYPE_CHECKING:
    pass


class Answers:
    """Looks up the result of an evaluation: in the ledger first, then in the results of other studies."""

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

    A failed replicate of a point is final; a failed replicate of the winner is retried by the next run. A
    replicate that a scheduler stopped counts for its own point only.
    """
    if row["status"] == FINISHED:
        return not planned.tested or not untested(row)
    if planned.tested:
        return False
    assert planned.origin is not None
    return row["status"] == FAILED or row.get("trial") == planned.origin.trial
