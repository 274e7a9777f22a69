"""Many evaluations on one device: packs on a GPU, one after the other on a CPU core.

evaluations -> by shape -> prepared -> packs that fit into memory -> trained together -> tested one by one
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from raydc.errors import EvaluationError, StoppedError
from raydc.spec.plan import Planned
from raydc.spec.result import FAILED, FINISHED, STOPPED, Measured, Row, make_row
from raydc.training.forwards import State, kernels_for
from raydc.training.memory import out_of_memory
from raydc.training.optimizer import packable
from raydc.training.packed import Looks, Member, fit_pack, shape_of
from raydc.worker.evaluate import attempt, error_text, one_line
from raydc.worker.examiner import Examiner
from raydc.worker.prepared import Prepared, new_student, prepare
from raydc.worker.workbench import Workbench

logger = logging.getLogger(__name__)

Attempt = tuple[Planned, int]
"""An evaluation and the number of this attempt."""


@dataclass(frozen=True)
class NotMeasured:
    """Why an evaluation has no result."""

    status: str
    """`failed` or `stopped`."""
    error: str


Outcome = Measured | NotMeasured
NO_ROOM, APART = "no room", "apart"
"""Reasons why a pack has no rows."""


def _outcome(problem: Exception) -> NotMeasured:
    return NotMeasured(STOPPED if isinstance(problem, StoppedError) else FAILED, error_text(problem))


def pack_key(planned: Planned) -> str:
    """A key that is equal for evaluations whose students have equal shapes."""
    evaluation = planned.evaluation
    point = evaluation.point
    shape = shape_of(evaluation.recipe)
    dropped = "images.drop_class" in point
    # Labels of views come in tables, others as one target per image; each has its own fast path.
    labels = f"{evaluation.labels_views} {evaluation.replays_views} {evaluation.keep_views}"
    return (
        f"{evaluation.arch} {evaluation.ipc} {dropped} {labels} {planned.tested} {planned.prunable} {shape}"
    )


def attempt_all(
    attempts: Sequence[Attempt], bench: Workbench, *, study: str, to_come: int = 0
) -> Iterator[list[Row]]:
    """Rows of all evaluations, as they end; the row of one that cannot finish holds its error.

    to_come: number of evaluations of their shape that this worker may be given, including these.
    """
    if bench.device.type != "cuda":
        for planned, number in attempts:
            yield [attempt(planned, bench, study=study, attempts=number)]
        return
    by_key: dict[str, list[Attempt]] = {}
    for planned, number in attempts:
        by_key.setdefault(pack_key(planned), []).append((planned, number))
    for group in by_key.values():
        evaluation = group[0][0].evaluation
        network = bench.engines.slot(evaluation.arch).network
        # Third-party views are read from files batch by batch.
        if kernels_for(network) and packable(evaluation.recipe) and not evaluation.replays_views:
            # All evaluations still to come have one shape.
            later = to_come if len(by_key) == 1 else 0
            yield from attempt_packs(group, bench, study=study, to_come=later)
        else:
            for planned, number in group:
                yield [attempt(planned, bench, study=study, attempts=number)]


def attempt_packs(
    group: Sequence[Attempt], bench: Workbench, *, study: str, to_come: int = 0
) -> Iterator[list[Row]]:
    """Rows of evaluations of one `pack_key`, one pack at a time."""
    group = list(group)
    later = max(0, to_come - len(group))
    # Computed once: kernels are compiled for one size.
    most = bench.engines.students_at_once(group[0][0].evaluation)
    while group:
        size = min(len(group), most)
        while (rows := _fitting(group[:size], bench, study, len(group) + later)) == NO_ROOM and size > 1:
            logger.warning("%d students do not fit into memory together; trying %d", size, size // 2)
            group[:size] = [(planned, number + 1) for planned, number in group[:size]]
            most = size = size // 2
        if isinstance(rows, list):
            yield rows
        else:
            for planned, number in group[:size]:
                yield [attempt(planned, bench, study=study, attempts=number)]
        group = group[size:]


def _fitting(pack: Sequence[Attempt], bench: Workbench, study: str, to_come: int) -> list[Row] | str:
    """Rows of a pack; NO_ROOM if it does not fit into memory, APART if its students must be trained
    singly."""
    try:
        return _attempt_pack(pack, bench, study, to_come)
    except Exception as problem:
        reason = NO_ROOM if out_of_memory(problem) else APART
        if reason == APART:
            reason_text = one_line(problem)
            logger.warning("students of a pack are trained one by one: %s", reason_text, exc_info=problem)
    # Here, because the exception references the pack's tensors until it is released.
    torch.cuda.empty_cache()
    return reason


def _attempt_pack(pack: Sequence[Attempt], bench: Workbench, study: str, to_come: int = 0) -> list[Row]:
    """Rows of a pack; `to_come`: unfinished evaluations of its shape, including the pack itself."""
    started, began = time.time(), time.monotonic()
    outcomes: dict[str, Outcome] = {}
    ready: list[Prepared] = []
    for planned, _ in pack:
        try:
            ready.append(prepare(planned, bench))
        except Exception as problem:
            if out_of_memory(problem):
                raise
            outcomes[planned.id] = _outcome(problem)
    for length in sorted({len(one.inputs) for one in ready}):
        together = [one for one in ready if len(one.inputs) == length]
        outcomes |= train_pack(together, bench, to_come)
    return _rows(pack, outcomes, bench, study, started, time.monotonic() - began)


def train_pack(ready: Sequence[Prepared], bench: Workbench, to_come: int) -> dict[str, Outcome]:
    """Train students of equal shapes together and test each; returns the outcomes by id."""
    began = time.perf_counter()
    arch = ready[0].planned.evaluation.arch
    slot = bench.engines.slot(arch)
    members = [_member(one, bench) for one in ready]
    kernel = bench.engines.kernel(arch, members, ready[0].pool, to_come)
    precision = ready[0].recipe.precision
    tests = ready[0].tests * max(to_come, len(ready))
    engine = slot.warm_test(bench.engines.test_engine(arch, precision, tests), precision)
    examiners = [Examiner(one, bench, slot, engine) for one in ready]
    outcomes: dict[str, Outcome] = {}

    def look(epochs: int, states: Mapping[int, State]) -> set[int]:
        ended = set()
        for number, state in states.items():
            slot.load(state)
            try:
                examiners[number].examine(epochs)
            except StoppedError as stopped:
                outcomes[ready[number].planned.id] = _outcome(stopped)
                ended.add(number)
        return ended

    setup_seconds = (time.perf_counter() - began) / len(ready)
    training = fit_pack(
        slot.network,
        members,
        kernel,
        bench.device,
        pool=ready[0].pool,
        looks=Looks(ready[0].examined_at, look) if ready[0].examined else None,
    )
    all_steps = sum(map(len, training.losses))
    for number, (one, examiner) in enumerate(zip(ready, examiners, strict=True)):
        losses = training.losses[number]
        if (diverged := _divergence(losses)) is not None:
            outcomes[one.planned.id] = _outcome(diverged)
        if one.planned.id in outcomes:
            continue
        slot.load(training.states[number])
        try:
            outcomes[one.planned.id] = examiner.conclude(
                steps=len(losses),
                train_seconds=training.train_seconds * len(losses) / max(1, all_steps),
                setup_seconds=one.setup_seconds + setup_seconds,
                engine=f"packed-{kernel}",
            )
        except EvaluationError as problem:
            outcomes[one.planned.id] = _outcome(problem)
    return outcomes


def _member(prepared: Prepared, bench: Workbench) -> Member:
    """A student as a member of a pack."""
    state = new_student(prepared.planned, bench)
    return Member(
        state={name: value.to(bench.device) for name, value in state.items()},
        inputs=prepared.inputs,
        targets=prepared.labels.source,
        recipe=prepared.recipe,
        key=prepared.view_key,
        grid=prepared.grid,
        images=prepared.planned.compressed_set,
    )


def _divergence(losses: Tensor) -> EvaluationError | None:
    """The error if a student's losses [steps] are not all finite, else None."""
    wrong = (~losses.isfinite()).nonzero()
    if not len(wrong):
        return None
    step = int(wrong[0])
    return EvaluationError(f"the loss is {losses[step].item()} at step {step}; lower train.lr")


def _rows(
    pack: Sequence[Attempt],
    outcomes: Mapping[str, Outcome],
    bench: Workbench,
    study: str,
    started: float,
    seconds: float,
) -> list[Row]:
    """Rows of a pack; each evaluation is assigned its part of the pack's time, so that times add up."""
    part = seconds / len(pack)
    rows = []
    for number, (planned, attempts) in enumerate(pack):
        outcome = outcomes[planned.id]
        lost = outcome if isinstance(outcome, NotMeasured) else None
        rows.append(
            make_row(
                planned,
                study=study,
                dataset_id=bench.dataset.id,
                status=FINISHED if lost is None else lost.status,
                started_at=started + number * part,
                finished_at=started + (number + 1) * part,
                attempts=attempts,
                measured=outcome if isinstance(outcome, Measured) else None,
                error=None if lost is None else lost.error,
            )
        )
    return rows
