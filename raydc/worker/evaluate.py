"""One evaluation from end to end: the main path of raydc.

    compressed set + labels -> student -> trained by the recipe -> accuracy

Needs torch, torchvision, NumPy and pyarrow only.
"""

from __future__ import annotations

import logging
import time

from torch import nn
from torch.optim import Optimizer

from raydc.errors import EvaluationError, RaydcError, StoppedError
from raydc.spec.plan import Planned
from raydc.spec.result import FAILED, FINISHED, STOPPED, Measured, Row, make_row
from raydc.training.fit import fit
from raydc.training.memory import out_of_memory
from raydc.worker.examiner import Examiner
from raydc.worker.prepared import new_student, prepare
from raydc.worker.workbench import Workbench

logger = logging.getLogger(__name__)


def evaluate(planned: Planned, bench: Workbench) -> Measured:
    """Train the student of `planned` and test it once, after its last step.

    Its prerequisites are read from the bench's store. Raises `EvaluationError` if the student cannot
    be trained, such as when its loss is not finite, and `StoppedError` if a scheduler ends it early.
    """
    prepared = prepare(planned, bench)
    recipe = prepared.recipe
    began = time.perf_counter()
    slot = bench.engines.slot(planned.evaluation.arch)
    engine = slot.engine(recipe, len(prepared.inputs))
    engine = slot.warm(engine, recipe, len(prepared.inputs))
    slot.load(new_student(planned, bench))
    examiner = Examiner(prepared, bench, slot, engine)

    def on_epoch(epoch: int, network: nn.Module, optimizer: Optimizer) -> None:
        del network, optimizer
        examiner.examine(epoch)

    setup_seconds = prepared.setup_seconds + time.perf_counter() - began
    training = fit(
        slot.network,
        prepared.inputs,
        prepared.labels.source,
        recipe,
        key=prepared.view_key,
        device=bench.device,
        on_epoch=on_epoch if prepared.examined else None,
        forward=slot.forward(engine),
        views=prepared.views(bench.device),
    )
    return examiner.conclude(
        steps=training.steps,
        train_seconds=training.train_seconds,
        setup_seconds=setup_seconds,
        engine=engine,
    )


def error_text(problem: Exception) -> str:
    """An error as a row stores it; the traceback of an unexpected error goes to the log."""
    if out_of_memory(problem):
        problem = EvaluationError(
            "a single student does not fit into the device's memory; lower train.batch_size or "
            f"resources.gpu_share, or choose a smaller student.arch ({problem})"
        )
    elif not isinstance(problem, RaydcError):
        logger.exception("an evaluation failed")
    return one_line(problem)


def one_line(error: Exception) -> str:
    """The type and message of an error, at most 2,000 characters."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:2000]


def attempt(planned: Planned, bench: Workbench, *, study: str, attempts: int = 1) -> Row:
    """Run `evaluate` and return a row; if the evaluation cannot finish, the row holds its error."""
    started, began = time.time(), time.monotonic()
    measured, error, status = None, None, FAILED
    try:
        measured, status = evaluate(planned, bench), FINISHED
    except StoppedError as stopped:
        error, status = error_text(stopped), STOPPED
    except Exception as problem:  # any error is recorded, and the other evaluations continue
        error = error_text(problem)
    return make_row(
        planned,
        study=study,
        dataset_id=bench.dataset.id,
        status=status,
        started_at=started,
        # Not the wall clock, which may have been adjusted: the difference must be a duration.
        finished_at=started + time.monotonic() - began,
        attempts=attempts,
        measured=measured,
        error=error,
    )
