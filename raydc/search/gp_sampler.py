"""Optuna's Gaussian process, which in a listed space is asked for the best of the points that nobody asked.

By itself it looks for the highest acquisition anywhere, finds points that were asked again and again (their
objective is noisy, so they look worth another try), and each draw for another one is left to chance. Where a
space has few points, the acquisition of each can be computed, and the choice is made among the new ones.
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
        """`points` are those that may be asked, as the study has them; at least one."""
        super().__init__(seed=seed)
        self._points = points
        self._searched: dict[str, BaseDistribution] = {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """As Optuna's; keys that are not asked at every point are left to chance there too."""
        self._searched = search_space
        return super().sample_relative(study, trial, search_space)

    def _optimize_acqf(self, acqf: Any, best_params: np.ndarray | None) -> np.ndarray:
        # Optuna offers this method for other ways to optimise, without a promise that it stays.
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
    """A value for a key that is not asked at a point."""
    assert isinstance(distribution, CategoricalDistribution | IntDistribution)
    return distribution.choices[0] if isinstance(distribution, CategoricalDistribution) else distribution.low
