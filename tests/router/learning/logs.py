"""Simulated logs of one policy's traffic, with exploration, where all outcomes are known."""

from dataclasses import dataclass

import numpy as np

from router.core import FloatArray, IntArray
from router.learning.evidence import Evidence


@dataclass(frozen=True)
class World:
    """Queries of two kinds with the expected quality of three candidates."""

    features: FloatArray  # [n, 4]
    quality: FloatArray  # [n, 3]

    @classmethod
    def of(cls, n: int, *, seed: int = 0) -> "World":
        rng = np.random.default_rng(seed)
        kind = rng.integers(2, size=n)
        features = rng.normal(size=(n, 4)) * 0.3
        features[:, 0] += 2.0 * kind
        quality = np.where(kind[:, None] == 0, [0.9, 0.3, 0.6], [0.2, 0.85, 0.6])
        return cls(features, quality)

    @property
    def best(self) -> IntArray:
        return self.quality.argmax(axis=1)

    def log(
        self, chosen: IntArray, *, share: float, seed: int, turns: int = 1, weights: FloatArray | None = None
    ) -> Evidence:
        """Decisions of a policy that chooses `chosen`, but `share` of the conversations are drawn."""
        rng = np.random.default_rng(seed)
        n, width = self.quality.shape
        units = np.arange(n) // turns
        propensities = np.full((n, width), share / width)
        propensities[np.arange(n), chosen] += 1 - share
        explored = (rng.random(units.max() + 1) < share)[units]
        actions = np.where(explored, rng.integers(width, size=units.max() + 1)[units], chosen)
        rewards = (rng.random(n) < self.quality[np.arange(n), actions]).astype(float)
        sampled = np.ones(n) if weights is None else weights
        return Evidence(actions, propensities, rewards, units, self.features, sampled)

    def value(self, choices: IntArray) -> float:
        return float(self.quality[np.arange(len(choices)), choices].mean())
