"""Optuna's Gaussian process sampler, restricted to the points of a finite space that were not asked yet.

By itself the sampler maximises the acquisition function over the whole space. Because the objective is noisy,
it proposes the same points repeatedly, and each redraw is random. In a space with few points, the acquisition
value of every new point can be computed, and the best of them is chosen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import GPSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, create_trial

from raydc.spec.keys import Value


class ListedGPSampler(GPSampler):
    """`GPSampler` that chooses among listed points."""

    def __init__(self, points: Sequence[Mapping[str, Value]], seed: int) -> None:
        """`points` are the candidates, with the parameter values of the Optuna study; at least one."""
        super().__init__(seed=seed)
        self._points = points
        self._searched: dict[str, BaseDistribution] = {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """As in Optuna; keys that not every point has are sampled at random, as there."""
        self._searched = search_space
        return super().sample_relative(study, trial, search_space)

    def _optimize_acqf(self, acqf: Any, best_params: np.ndarray | None) -> np.ndarray:
        # Optuna offers this method for other optimisers, but it is not part of the stable API.
        listed = [
            create_trial(
                value=0.0,
                params={key: point.get(key, _first(d)) for key, d in self._searched.items()},
                distributions=self._searched,
            )
            for point in self._points
        ]
        normalised: np.ndarray = acqf.search_space.get_normalized_params(listed)
        return normalised[int(np.argmax(acqf.eval_acqf_no_grad(normalised)))]


def _first(distribution: BaseDistribution) -> Value:
    """A placeholder for a key that a point does not have."""
    assert isinstance(distribution, CategoricalDistribution | IntDistribution)
    return distribution.choices[0] if isinstance(distribution, CategoricalDistribution) else distribution.low
