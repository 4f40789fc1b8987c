"""Logged decisions as arrays: what was chosen, with which probability, and how good it was.

The one input of the estimators; whatever is measured of a decision (quality, cost, latency) is a reward.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from router.core import FloatArray, IntArray
from router.errors import InputError

CERTAIN = 1 - 1e-9
"""A decision with this probability was not left to chance."""
OUTSIDE = -1
"""The column of a candidate that the log does not have."""
TOLERANCE = 1e-6
"""Of the sum of a decision's probabilities."""


@dataclass(frozen=True)
class Evidence:
    """Logged decisions with their rewards, row by row.

    Raises:
        InputError: shapes differ, a row's probabilities do not sum to 1, or its action has none.
    """

    actions: IntArray  # [n] column of the candidate that was chosen
    propensities: FloatArray  # [n, candidates] probability of each
    rewards: FloatArray  # [n] in [0, 1]
    units: IntArray  # [n] number of the conversation
    features: FloatArray  # [n, dimension] of the query, for the reward model
    weights: FloatArray  # [n] 1 / rate of the sample that the reward is of

    def __post_init__(self) -> None:
        n = len(self.actions)
        if self.propensities.ndim != 2 or self.features.ndim != 2:
            raise InputError("propensities and features must be matrices")
        if {len(self.propensities), len(self.rewards), len(self.units), len(self.features)} != {n} or len(
            self.weights
        ) != n:
            raise InputError("each part of the evidence must have one row for each decision")
        if not n:
            return
        sums = self.propensities.sum(axis=1)
        if (self.propensities < 0).any() or (np.abs(sums - 1) > TOLERANCE).any():
            raise InputError("the probabilities of each decision must be at least 0 and sum to 1")
        if (self.propensities[np.arange(n), self.actions] <= 0).any():
            raise InputError("each action must have had a probability above 0")
        if not np.isfinite(self.rewards).all() or not (self.weights > 0).all():
            raise InputError("rewards must be finite and weights above 0")

    def __len__(self) -> int:
        return len(self.actions)

    @property
    def explored(self) -> bool:
        """Whether any decision was left to chance."""
        return bool(len(self)) and bool((self.propensities.max(axis=1) < CERTAIN).any())

    @property
    def conversations(self) -> int:
        return len(np.unique(self.units))

    def take(self, rows: IntArray) -> Self:
        """A copy with only these rows, in this order."""
        return replace(
            self,
            actions=self.actions[rows],
            propensities=self.propensities[rows],
            rewards=self.rewards[rows],
            units=self.units[rows],
            features=self.features[rows],
            weights=self.weights[rows],
        )

    def with_rewards(self, rewards: FloatArray) -> Self:
        """The same decisions with another reward."""
        return replace(self, rewards=rewards)

    def propensity_of(self, choices: IntArray) -> FloatArray:
        """Probability with which the log chose what a policy chooses, [n]; 0 at `OUTSIDE`."""
        found = self.propensities[np.arange(len(self)), np.maximum(choices, 0)]
        return np.where(choices == OUTSIDE, 0.0, found)
