"""What a search asks next: Optuna's samplers, on a copy of the trials in which nothing is asked twice.

Two things that the samplers do not know make a search of few points better. Listed numbers have an order, so
in the copy they are positions from 0 up, between which a sampler can interpolate. And an evaluation says the
same whenever it is run, so a point that was asked is not asked again: another is drawn.
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
"""Points that are drawn to find one that was not asked, each with a seed of its own: by the search's
sampler, which may be sure of a point that was, and then by chance."""
MOST_LISTED = 2000
"""Points of a space of which a Gaussian process is asked for each."""
LEARNT_FROM = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)


@contextmanager
def quiet() -> Iterator[None]:
    """Without Optuna's notes on what is experimental or given twice, which tell a user nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def sampler_of(search: SearchSpec, *number: int) -> BaseSampler:
    """Optuna's sampler for one draw; `number` and the search's seed are its seed."""
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
    return RandomSampler(seed)  # a grid is enqueued, so nothing is left to sample


def _seed(search: SearchSpec, *number: int) -> int:
    return seed_of("search", search.seed, *number) % 2**32


def suggested(trial: Trial, dimension: Dimension) -> Value:
    """What a trial says of a dimension, as Optuna keeps it; lists are the texts that tables show."""
    if dimension.kind == "categorical":
        return trial.suggest_categorical(dimension.key, [flat_value(choice) for choice in dimension.choices])
    log = dimension.kind in ("loguniform", "logint")
    if dimension.whole:
        return trial.suggest_int(dimension.key, int(dimension.low), int(dimension.high), log=log)
    return trial.suggest_float(dimension.key, dimension.low, dimension.high, log=log)


def value_of(dimension: Dimension, stored: Value) -> Value:
    """A value that Optuna's storage keeps, as a point has it."""
    if dimension.kind != "categorical":
        return stored
    return next(choice for choice in dimension.choices if flat_value(choice) == stored)


def proposal(search: SearchSpec, trials: Sequence[FrozenTrial], number: int) -> dict[str, Value]:
    """A point that none of `trials` has, for the trial after `number` others.

    Where a finite space has none left, one of them is drawn again.
    """
    asked = {_name(point_of(search, trial)) for trial in trials if trial.params}
    new = _new(search, asked)
    # Those in training are not among the new points, so they need no weight of the process's acquisition.
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
    """The points that a Gaussian process may choose from, as the copy has them; empty where it is free."""
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
        if trial.state in LEARNT_FROM and trial.params:
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
    """What a trial of the stored study says of each key that was asked at its point."""
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
    """A dimension as the copy has it: listed numbers are positions."""
    if not dimension.order:
        return dimension
    return Dimension(dimension.key, "int", 0, len(dimension.order) - 1)


def _positions(search: SearchSpec, point: Mapping[str, Value]) -> dict[str, Value]:
    """A point as the copy has it."""
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
