"""How probably the answer at hand is right: logistic regression on its signals, saved as arrays.

Numpy only, so that the ingress imports it. Ridge-penalised (le Cessie and van Houwelingen 1992) and fitted
by Newton's method; targets are qualities in [0, 1], so its predictions are calibrated expected qualities.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from router.core import FloatArray
from router.errors import WeightsError
from router.plans.signals import Signals

PENALTY = 3.0
"""Of the squared weights of standardised features."""
STEPS = 30
LEAST_SPREAD = 1e-6
LEAST_KNOWN = 0.5
"""Share of the training answers that must have a signal for it to be used."""
EDGE = 0.02
"""Scores this near 0 or 1 count as that far, for their log odds."""


def log_odds(value: float) -> float:
    inside = min(max(value, EDGE), 1 - EDGE)
    return float(np.log(inside / (1 - inside)))


FEATURES: Mapping[str, tuple[str, Callable[[float], float]]] = {
    "score": ("score", log_odds),
    "agreement": ("agreement", float),
    "length": ("characters", lambda count: float(np.log1p(count))),
    "mean_logprob": ("mean_logprob", float),
    "least_logprob": ("least_logprob", lambda value: max(float(value), -20.0)),
    "final_logprob": ("final_logprob", float),
    "complete": ("complete", float),
    "refused": ("refused", float),
    "has_answer": ("has_answer", float),
    "valid": ("valid", float),
}
"""Feature → the signal it is made of, and how."""
LOGPROBS = frozenset({"mean_logprob", "least_logprob", "final_logprob"})


def features(signals: Sequence[Signals]) -> FloatArray:
    """Feature values, [n, len(FEATURES)]; NaN where a signal is unknown."""
    table = np.full((len(signals), len(FEATURES)), np.nan)
    for row, one in enumerate(signals):
        for column, (name, transform) in enumerate(FEATURES.values()):
            value = getattr(one, name)
            if value is not None:
                table[row, column] = transform(value)
    return table


@dataclass(frozen=True)
class AcceptanceModel:
    """Signals of the answer at hand → the probability that it is right."""

    weights: FloatArray  # [features], 0 for those that training had too rarely
    centre: FloatArray  # [features] the value of an unknown signal
    spread: FloatArray  # [features]
    intercept: float

    @classmethod
    def fit(cls, signals: Sequence[Signals], quality: FloatArray) -> Self:
        """Learn from answers: their signals, and their measured quality [n] in [0, 1]."""
        return cls.fit_features(features(signals), quality)

    @classmethod
    def fit_features(cls, table: FloatArray, quality: FloatArray) -> Self:
        """Learn from feature values [n, features]."""
        known = np.isfinite(table)
        used = known.mean(axis=0) >= LEAST_KNOWN
        count = np.maximum(known.sum(axis=0), 1)
        centre = np.where(known, table, 0.0).sum(axis=0) / count
        apart = np.where(known, table - centre, 0.0)
        spread = np.sqrt((apart**2).sum(axis=0) / count)
        used &= spread > LEAST_SPREAD
        spread = np.where(used, spread, 1.0)
        x = np.hstack([np.where(used, apart / spread, 0.0), np.ones((len(table), 1))])
        penalty = np.diag([*np.full(table.shape[1], PENALTY), 1e-6])
        mean = float(np.clip(quality.mean(), 0.01, 0.99))
        beta = np.zeros(x.shape[1])
        beta[-1] = np.log(mean / (1 - mean))
        for _ in range(STEPS):
            p = _sigmoid(x @ beta)
            gradient = x.T @ (quality - p) - penalty @ beta
            step = np.linalg.solve(x.T @ (x * np.maximum(p * (1 - p), 1e-4)[:, None]) + penalty, gradient)
            beta += step
            if np.abs(step).max() < 1e-6:
                break
        return cls(np.where(used, beta[:-1], 0.0), np.where(used, centre, 0.0), spread, float(beta[-1]))

    @property
    def needs(self) -> frozenset[str]:
        """The signals that it reads, by their names in `Signals`."""
        return frozenset(
            signal for (signal, _), weight in zip(FEATURES.values(), self.weights, strict=True) if weight
        )

    @property
    def needs_logprobs(self) -> bool:
        """Whether it reads log-probabilities, which the ingress must then request."""
        return bool(self.needs & LOGPROBS)

    def p_right(self, signals: Signals) -> float:
        """The probability that the answer at hand is right; unknown signals count as average ones."""
        return float(self.p_right_features(features([signals]))[0])

    def p_right_features(self, table: FloatArray) -> FloatArray:
        """The same for feature values, [n, features] → [n]."""
        apart = np.where(np.isfinite(table), table - self.centre, 0.0) / self.spread
        return _sigmoid(apart @ self.weights + self.intercept)

    def arrays(self) -> dict[str, FloatArray]:
        """Named arrays for safetensors."""
        return {
            "weights": np.stack([self.weights, self.centre, self.spread]),
            "intercept": np.array([self.intercept]),
        }

    @classmethod
    def restore(cls, arrays: Mapping[str, FloatArray]) -> Self:
        """The model again, from its arrays.

        Raises:
            WeightsError: names or shapes of the arrays do not fit.
        """
        shapes = {name: value.shape for name, value in arrays.items()}
        if shapes != {"weights": (3, len(FEATURES)), "intercept": (1,)} or (arrays["weights"][2] <= 0).any():
            raise WeightsError(f"an acceptance model needs weights [3, {len(FEATURES)}] and an intercept")
        weights, centre, spread = arrays["weights"].astype(np.float64)
        return cls(weights, centre, spread, float(arrays["intercept"][0]))


def _sigmoid(values: FloatArray) -> FloatArray:
    odds: FloatArray = 1 / (1 + np.exp(-np.clip(values, -30, 30)))
    return odds
