"""The next point of a search: Optuna's samplers on a copy of the trials, without repeated points.

Two facts that the samplers do not know improve a search of few points. Listed numbers are ordered, so in the
copy they are positions from 0 up, between which a sampler can interpolate. And an evaluation is
deterministic, so a point that was already asked is replaced by another draw.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import (
    BaseSampler,
    CmaEsSampler,
    GPSampler,
    NSGAIISampler,
    RandomSampler,
    TPESampler,
)
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from raydc.search.gp_sampler import ListedGPSampler
from raydc.spec.evaluation import canonical_json
from raydc.spec.keys import Value
from raydc.spec.point import flat_value
from raydc.spec.search import Dimension, SearchSpec
from raydc.spec.seeding import seed_of

DRAWS, RANDOM_DRAWS = 10, 100
"""Most draws to find a point that was not asked, each with its own seed: first by the search's sampler, which
may repeat one point, then at random."""
MOST_LISTED = 2000
"""Most points of a space for which the acquisition function is computed at every point."""
TRIALS_USED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress Optuna's warnings on experimental features and repeated values, which do not help a user."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def sampler_of(search: SearchSpec, *number: int) -> BaseSampler:
    """Optuna's sampler for one draw, seeded by the search's seed and `number`."""
    seed = _seed(search, *number)
    with quiet():
        if search.sampler == "tpe":
            conditional = any(dimension.when for dimension in search.space)
            return TPESampler(seed=seed, multivariate=True, group=conditional, constant_liar=True)
        if search.sampler == "gp":
            return GPSampler(seed=seed)
        if search.sampler == "cmaes":
            return CmaEsSampler(seed=seed)
        if search.sampler == "nsga2":
            return NSGAIISampler(seed=seed)
    return RandomSampler(seed)  # the points of a grid are enqueued, not sampled


def _seed(search: SearchSpec, *number: int) -> int:
    return seed_of("search", search.seed, *number) % 2**32


def suggested(trial: Trial, dimension: Dimension) -> Value:
    """The trial's value of a dimension, as Optuna stores it; a list is stored as its text in tables."""
    if dimension.kind == "categorical":
        return trial.suggest_categorical(dimension.key, [flat_value(choice) for choice in dimension.choices])
    log = dimension.kind in ("loguniform", "logint")
    if dimension.whole:
        return trial.suggest_int(dimension.key, int(dimension.low), int(dimension.high), log=log)
    return trial.suggest_float(dimension.key, dimension.low, dimension.high, log=log)


def value_of(dimension: Dimension, stored: Value) -> Value:
    """The value of a point for a value in Optuna's storage."""
    if dimension.kind != "categorical":
        return stored
    return next(choice for choice in dimension.choices if flat_value(choice) == stored)


def proposal(search: SearchSpec, trials: Sequence[FrozenTrial], number: int) -> dict[str, Value]:
    """A point that none of `trials` has, for trial `number`.

    If a finite space has no such point left, a point is repeated.
    """
    asked = {_name(point_of(search, trial)) for trial in trials if trial.params}
    new = _new(search, asked)
    # Running points are not among the new ones, so the acquisition function need not avoid them.
    copy = _copy(search, [t for t in trials if not new or t.state != TrialState.RUNNING])
    point: dict[str, Value] = {}
    for draw in range(DRAWS + RANDOM_DRAWS):
        with quiet():
            copy.sampler = _sampler(search, new, number, draw)
            trial = copy.ask()
            point = _drawn(search, trial)
            if _name(point) not in asked:
                return point
            copy.tell(trial, state=TrialState.FAIL)
    if all(dimension.finite for dimension in search.space):
        return next((one for one in search.grid() if _name(one) not in asked), point)
    return point


def _sampler(search: SearchSpec, new: Sequence[Mapping[str, Value]], number: int, draw: int) -> BaseSampler:
    if draw >= DRAWS:
        return RandomSampler(_seed(search, number, draw))
    if new:
        return ListedGPSampler(new, _seed(search, number, draw))
    return sampler_of(search, number, draw)


def _new(search: SearchSpec, asked: Collection[str]) -> list[dict[str, Value]]:
    """Candidates of the Gaussian process, in the copy's values; empty if it may choose any point."""
    if search.sampler != "gp" or not all(dimension.finite for dimension in search.space):
        return []
    listed = list(islice(search.grid(), MOST_LISTED + 1))
    if len(listed) > MOST_LISTED:
        return []
    return [_positions(search, point) for point in listed if _name(point) not in asked]


def _copy(search: SearchSpec, trials: Sequence[FrozenTrial]) -> optuna.Study:
    copy = optuna.create_study(
        directions=["maximize" if mode == "max" else "minimize" for mode in search.modes],
        sampler=RandomSampler(),
    )
    for trial in trials:
        if trial.state in TRIALS_USED and trial.params:
            point = point_of(search, trial)
            copy.add_trial(
                create_trial(
                    state=trial.state,
                    values=trial.values,
                    params=_positions(search, point),
                    distributions={d.key: _distribution(_copied(d)) for d in search.space if d.key in point},
                    intermediate_values=trial.intermediate_values,
                )
            )
    return copy


def point_of(search: SearchSpec, trial: FrozenTrial) -> dict[str, Value]:
    """The point of a trial of the stored study, by key."""
    return {d.key: value_of(d, trial.params[d.key]) for d in search.space if d.key in trial.params}


def _name(point: Mapping[str, Value]) -> str:
    return canonical_json(dict(point))


def _drawn(search: SearchSpec, trial: Trial) -> dict[str, Value]:
    chosen: dict[str, Value] = {}
    for dimension in search.space:
        if dimension.asked_at(chosen):
            drawn = suggested(trial, _copied(dimension))
            chosen[dimension.key] = (
                dimension.order[int(drawn)] if dimension.order else value_of(dimension, drawn)
            )
    return chosen


def _copied(dimension: Dimension) -> Dimension:
    """A dimension in the copy: listed numbers become positions."""
    if not dimension.order:
        return dimension
    return Dimension(dimension.key, "int", 0, len(dimension.order) - 1)


def _positions(search: SearchSpec, point: Mapping[str, Value]) -> dict[str, Value]:
    """A point in the copy's values."""
    return {
        d.key: d.order.index(point[d.key]) if d.order else flat_value(point[d.key])
        for d in search.space
        if d.key in point
    }


def _distribution(dimension: Dimension) -> BaseDistribution:
    if dimension.kind == "categorical":
        return CategoricalDistribution([flat_value(choice) for choice in dimension.choices])
    log = dimension.kind in ("loguniform", "logint")
    if dimension.whole:
        return IntDistribution(int(dimension.low), int(dimension.high), log=log)
    return FloatDistribution(dimension.low, dimension.high, log=log)
