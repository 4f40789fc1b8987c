"""Value of a policy on traffic that another one routed: self-normalised inverse propensity, doubly robust.

Arrays in, numbers out; knows nothing of logs or policies. Intervals are by conversation. They take the
larger of two variances: of the decisions at hand, and by the logged probabilities. The latter matters where
the log happens to hold few of a policy's rarer choices, whose spread then cannot be seen in it.
"""

import math
from dataclasses import dataclass
from enum import StrEnum
from statistics import NormalDist

import numpy as np

from router.core import FloatArray, IntArray
from router.learning.evidence import OUTSIDE, Evidence

LEAST_EFFECTIVE = 100.0
"""Effective sample size below which no figure is given."""
MOST_UNSUPPORTED = 0.10
"""Share of a policy's decisions that the log may lack."""
ALPHA = 0.05
"""Probability that an interval misses the truth: 95 % intervals."""
LEAST_FREEDOM = 3.0


class Obstacle(StrEnum):
    """Why a log cannot show the value of a policy."""

    NO_REWARD = "no_reward"
    NO_EXPLORATION = "no_exploration"
    UNSUPPORTED = "unsupported"
    FEW = "few"


@dataclass(frozen=True, slots=True)
class Interval:
    """A value and its interval, of 95 % unless another level is set."""

    value: float
    low: float
    high: float

    @property
    def ci95(self) -> list[float]:
        return [self.low, self.high]


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a log shows of a policy; without figures where there is an obstacle."""

    effective_n: float
    """Conversations that a plain mean would need for the same spread of weights."""
    unsupported: float
    """Share of the policy's decisions that the log never makes."""
    obstacle: Obstacle | None = None
    doubly_robust: Interval | None = None
    inverse_propensity: Interval | None = None
    gain: Interval | None = None
    """Doubly robust, less that of what the log chooses without a draw: of the policy in effect."""


@dataclass(frozen=True, slots=True)
class _Outside:
    """The decisions that the log does not support."""

    share: float
    reward: float
    """Mean reward of what was logged for them."""


@dataclass(frozen=True)
class _Part:
    """The decisions that the log supports, as an estimator needs them."""

    weight: FloatArray  # [m] of the sample, scaled to a sum of 1
    ratio: FloatArray  # [m] 1 / propensity where the log chose what the policy chooses, else 0
    propensity: FloatArray  # [m] of what the policy chooses
    reward: FloatArray  # [m]
    unit: IntArray  # [m]


def estimate(
    evidence: Evidence, choices: IntArray, predicted: FloatArray, *, alpha: float = ALPHA
) -> Estimate:
    """Estimate the value of a policy.

    Unsupported decisions count as reward 0 in the lower bound and as reward 1 in the upper one.

    Args:
        evidence: logged decisions.
        choices: [n] column that the policy chooses for each; `OUTSIDE` where the log has no such candidate.
        predicted: [n, candidates] of the cross-fitted reward model.
        alpha: probability that an interval misses the truth.
    """
    if not len(evidence):
        return Estimate(0.0, 0.0, Obstacle.NO_REWARD)
    propensity = evidence.propensity_of(choices)
    rows = np.flatnonzero(propensity > 0)
    share = evidence.weights / evidence.weights.sum()
    unsupported = float(max(0.0, 1 - share[rows].sum()))
    if not evidence.explored:
        return Estimate(0.0, unsupported, Obstacle.NO_EXPLORATION)
    if unsupported > MOST_UNSUPPORTED:
        return Estimate(0.0, unsupported, Obstacle.UNSUPPORTED)
    part = _part(evidence, rows, choices[rows], share)
    effective = _effective(part)
    if effective < LEAST_EFFECTIVE:
        return Estimate(effective, unsupported, Obstacle.FEW)
    undrawn = evidence.propensities[rows].argmax(axis=1)
    expected, usual = predicted[rows, choices[rows]], predicted[rows, undrawn]
    residual = part.reward - predicted[rows, evidence.actions[rows]]
    baseline = _part(evidence, rows, undrawn, share)
    missing = np.setdiff1d(np.arange(len(evidence)), rows)
    reward = float(np.average(evidence.rewards[missing], weights=share[missing])) if len(missing) else 0.0
    outside = _predicted_outside(choices, predicted, missing, share)
    return Estimate(
        effective,
        unsupported,
        None,
        doubly_robust=_bounded(_doubly_robust(part, expected, residual, alpha), unsupported, outside),
        inverse_propensity=_bounded(_inverse_propensity(part, alpha), unsupported),
        gain=_gain(part, expected, baseline, usual, residual, _Outside(unsupported, reward), alpha),
    )


def _part(evidence: Evidence, rows: IntArray, choices: IntArray, share: FloatArray) -> _Part:
    """The decisions of `rows`, with the ratios of a policy that makes these choices."""
    propensity = evidence.propensities[rows, choices]
    return _Part(
        weight=share[rows] / share[rows].sum(),
        ratio=np.where(evidence.actions[rows] == choices, 1 / propensity, 0.0),
        propensity=propensity,
        reward=evidence.rewards[rows],
        unit=evidence.units[rows],
    )


def mean_of(evidence: Evidence) -> Interval:
    """Mean reward of the logged decisions themselves."""
    weight = evidence.weights / evidence.weights.sum()
    mean = float(weight @ evidence.rewards)
    influence = weight * (evidence.rewards - mean)
    return _interval(mean, _by_unit(influence, evidence.units), 0.0)


def _effective(part: _Part) -> float:
    """Kish's effective sample size over conversations: of the matches at hand, or as expected of the log."""
    weighted = _by_unit(part.weight * part.ratio, part.unit)
    if not weighted.any():
        return 0.0
    observed = weighted.sum() ** 2 / (weighted**2).sum()
    expected = _by_unit(part.weight / np.sqrt(part.propensity), part.unit)
    return float(min(observed, 1 / (expected**2).sum()))


def _inverse_propensity(part: _Part, alpha: float) -> Interval:
    total = float(part.weight @ part.ratio)
    value = float(part.weight @ (part.ratio * part.reward)) / total
    influence = part.weight * part.ratio * (part.reward - value) / total
    spread = float(part.weight @ (part.reward - value) ** 2)
    return _interval(value, _by_unit(influence, part.unit), _by_design(part, spread / part.propensity), alpha)


def _doubly_robust(part: _Part, expected: FloatArray, residual: FloatArray, alpha: float) -> Interval:
    value, influence = _doubly_robust_influence(part, expected)
    spread = float(part.weight @ residual**2)
    model = _by_unit(part.weight * (expected - part.weight @ expected), part.unit)
    by_design = _by_design(part, spread / part.propensity) + float((model**2).sum())
    return _interval(value, _by_unit(influence, part.unit), by_design, alpha)


def _gain(
    part: _Part,
    expected: FloatArray,
    baseline: _Part,
    usual: FloatArray,
    residual: FloatArray,
    outside: _Outside,
    alpha: float,
) -> Interval:
    """Paired with what the log chooses without a draw: where the two agree, nothing is added.

    Args:
        part: the supported decisions, with the ratios of the policy.
        expected: [m] predicted rewards of the policy's choices.
        baseline: the same decisions, with the ratios of the log's choices without a draw.
        usual: [m] predicted rewards of those.
        residual: [m] rewards less the predicted ones of the logged actions.
        outside: the other decisions.
        alpha: probability that the interval misses the truth.
    """
    value, influence = _doubly_robust_influence(part, expected)
    usual_value, usual_influence = _doubly_robust_influence(baseline, usual)
    paired = influence - usual_influence
    spread = float(part.weight @ residual**2)
    differs = (part.propensity != baseline.propensity) | (part.ratio != baseline.ratio)
    by_design = _by_design(part, differs * spread * (1 / part.propensity + 1 / baseline.propensity))
    found = _interval(value - usual_value, _by_unit(paired, part.unit), by_design, alpha)
    supported = 1 - outside.share
    return Interval(
        found.value,
        max(-1.0, supported * found.low - outside.share * outside.reward),
        min(1.0, supported * found.high + outside.share * (1 - outside.reward)),
    )


def _doubly_robust_influence(part: _Part, expected: FloatArray) -> tuple[float, FloatArray]:
    """The self-normalised doubly robust value, and what each decision adds to its error, [m]."""
    total = float(part.weight @ part.ratio)
    mean = float(part.weight @ expected)
    correction = float(part.weight @ (part.ratio * (part.reward - expected))) / total
    influence: FloatArray = part.weight * (expected - mean)
    influence = influence + part.weight * part.ratio * (part.reward - expected - correction) / total
    return mean + correction, influence


def _predicted_outside(
    choices: IntArray, predicted: FloatArray, missing: IntArray, share: FloatArray
) -> float | None:
    """The reward model's mean for unsupported decisions; `None` without their candidates."""
    rows = missing[choices[missing] != OUTSIDE]
    return float(np.average(predicted[rows, choices[rows]], weights=share[rows])) if len(rows) else None


def _bounded(found: Interval, unsupported: float, outside: float | None = None) -> Interval:
    """An interval for all decisions; the unsupported ones have the mean `outside`, if any."""
    supported = 1 - unsupported
    low = supported * max(0.0, found.low)
    high = supported * min(1.0, found.high) + unsupported
    value = min(max(found.value, 0.0), 1.0)
    if outside is not None:
        value = supported * value + unsupported * outside
    return Interval(value, min(low, value), max(high, value))


def _by_design(part: _Part, variance: FloatArray) -> float:
    """Variance of a weighted mean whose terms have this variance, alike within a conversation."""
    return float((_by_unit(part.weight * np.sqrt(variance), part.unit) ** 2).sum())


def _by_unit(values: FloatArray, units: IntArray) -> FloatArray:
    """Sums over each conversation."""
    _, place = np.unique(units, return_inverse=True)
    sums: FloatArray = np.bincount(place, weights=values).astype(np.float64)
    return sums


def _interval(value: float, influence: FloatArray, by_design: float, alpha: float = ALPHA) -> Interval:
    """A Student interval from each conversation's influence; few influential ones make it wider."""
    squares = influence**2
    n, total = len(squares), float(squares.sum())
    variance = max(total * n / max(1, n - 1), by_design)
    fourth = float((squares**2).sum())
    freedom = min(n - 1.0, total * total / fourth) if fourth > 0 else n - 1.0
    radius = _student(max(LEAST_FREEDOM, freedom), alpha) * math.sqrt(variance)
    return Interval(value, value - radius, value + radius)


def _student(freedom: float, alpha: float) -> float:
    """Student's two-sided quantile, by its expansion around the normal's (Abramowitz and Stegun, 26.7.5)."""
    z = NormalDist().inv_cdf(1 - alpha / 2)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / freedom ** (power + 1) for power, term in enumerate(terms))
