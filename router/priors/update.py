"""What a few outcomes say, joined with the prior: Bayesian shrinkage, so that few probes move little.

Expected qualities by kind and expert are a Gaussian whose mean and covariance come from the catalogue; an
outcome observes the mixture of kinds that its query is, with a part that all experts share (the query's
difficulty) and noise. What differs within a kind is left to training: 200 outcomes do not show it
(docs/research-log.md).
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from router.core import FloatArray
from router.methods.prior import PriorRouter
from router.priors.abilities import DIFFICULTY, NOISE, Abilities

LEAST_SHARED, LEAST_NOISE = 0.01, 0.03
"""Variances of a query's shared difficulty and of an outcome, at the least."""
SHARED, OUTCOME = 0.08, 0.12
"""The same before anything was measured: typical of right and wrong answers."""
UNRELATED = 0.5
"""Standard deviation, from its prior, of an expert's quality at a kind that has nothing to do with it."""
DOUBT = 0.2
"""The same before anything was measured: probes go also where the prior is sure."""


@dataclass(frozen=True)
class Belief:
    """Expected quality of each expert at each kind, as a Gaussian."""

    mean: FloatArray  # [experts, kinds]
    covariance: FloatArray  # [experts × kinds, experts × kinds]

    @classmethod
    def of(cls, abilities: Abilities) -> "Belief":
        """The prior about queries of a user: another benchmark, whose difficulty is not known."""
        experts, kinds = abilities.mean.shape
        same_kind = np.tile(np.eye(kinds), (experts, experts))
        logits = abilities.covariance + DIFFICULTY**2 * same_kind + NOISE**2 * np.eye(experts * kinds)
        quality = abilities.quality
        slope = (quality * (1 - quality)).reshape(-1)
        return cls(quality, slope[:, None] * logits * slope[None, :])

    def after(self, members: FloatArray, quality: FloatArray) -> "Belief":
        """The belief after outcomes.

        A prior of public benchmarks knows nothing of a specialist: where the outcomes are more probable if
        these experts' qualities have nothing to do with it, only its means are kept (a comparison of two
        models by their evidence: MacKay 1992).

        Args:
            members: [n, kinds] probabilities of the kinds of each query.
            quality: [n, experts]; NaN where not measured.
        """
        held = self._given(members, quality, *_variances(quality - members @ self.mean.T))
        free = self.departing(UNRELATED)
        rough = free._given(members, quality, SHARED, OUTCOME).belief
        left = free._given(members, quality, *_variances(quality - members @ rough.mean.T))
        return max(held, left, key=lambda each: each.evidence).belief

    def departing(self, by: float) -> "Belief":
        """The belief about experts whose quality at each kind departs from it by this standard deviation."""
        return replace(self, covariance=self.covariance + by**2 * np.eye(len(self.covariance)))

    def _given(self, members: FloatArray, quality: FloatArray, shared: float, noise: float) -> "_Given":
        """The belief after outcomes with these variances, and how probable it finds them."""
        prior = np.linalg.inv(self.covariance + 1e-9 * np.eye(len(self.covariance)))
        precision, pulled = prior.copy(), np.zeros(len(prior))
        seen, surprise = np.isfinite(quality), 0.0
        for pattern in np.unique(seen, axis=0):
            if pattern.any():
                rows = (seen == pattern).all(axis=1)
                weight, count = _weight(pattern, shared, noise), int(pattern.sum())
                inside = members[rows]
                apart = np.where(pattern, np.nan_to_num(quality[rows]) - inside @ self.mean.T, 0.0)
                precision += np.kron(weight, inside.T @ inside)
                pulled += (weight @ apart.T @ inside).reshape(-1)
                spread = (count - 1) * np.log(noise) + np.log(noise + count * shared)
                surprise += float(((apart @ weight) * apart).sum() + len(inside) * spread)
        covariance = np.linalg.inv(precision)
        moved = covariance @ pulled
        surprise += np.linalg.slogdet(precision)[1] - np.linalg.slogdet(prior)[1] - pulled @ moved
        return _Given(Belief(self.mean + moved.reshape(self.mean.shape), covariance), -surprise / 2)


class _Given(NamedTuple):
    belief: Belief
    evidence: float
    """Log probability of the outcomes, up to a constant."""


def updated(method: PriorRouter, belief: Belief, embeddings: FloatArray, quality: FloatArray) -> PriorRouter:
    """The method after outcomes.

    Args:
        method: recognises the kinds; its expectations are those of `belief`.
        belief: before the outcomes.
        embeddings: [n, dimension] of the probes.
        quality: [n, experts]; NaN where not measured.
    """
    after = belief.after(method.membership(embeddings), quality)
    return method.moved(np.clip(after.mean.T, 0.0, 1.0))


def allocation(belief: Belief, *, count: int, available: FloatArray) -> list[int]:
    """How many probes of each kind: where it is least certain which expert is best, one after the other.

    Args:
        belief: before the probes.
        count: probes in all, each sent to every expert.
        available: [kinds] probes that there are.
    """
    experts, kinds = belief.mean.shape
    chosen = np.zeros(kinds, dtype=int)
    weight = _weight(np.ones(experts, dtype=bool), SHARED, OUTCOME)
    precision = np.linalg.inv(belief.departing(DOUBT).covariance)
    for _ in range(min(count, int(np.sum(available)))):
        covariance = np.linalg.inv(precision)
        gains = [
            _gain(belief.mean[:, kind], covariance[kind::kinds, kind::kinds])
            if chosen[kind] < available[kind]
            else -1.0
            for kind in range(kinds)
        ]
        kind = int(np.argmax(gains))
        chosen[kind] += 1
        one = np.eye(kinds)[kind]
        precision = precision + np.kron(weight, np.outer(one, one))
    return [int(number) for number in chosen]


def _gain(mean: FloatArray, covariance: FloatArray) -> float:
    """Expected loss from choosing by the mean: the sum of each other expert's chance to be better.

    The expected improvement of Gaussian differences (Jones et al. 1998).
    """
    from math import erf, exp, pi, sqrt

    best, total = int(np.argmax(mean)), 0.0
    for other in range(len(mean)):
        variance = covariance[best, best] + covariance[other, other] - 2 * covariance[best, other]
        spread = sqrt(max(float(variance), 0.0))
        if other != best and spread > 0:
            z = float(mean[other] - mean[best]) / spread
            total += spread * (exp(-z * z / 2) / sqrt(2 * pi) + z * (1 + erf(z / sqrt(2))) / 2)
    return total


def _weight(pattern: FloatArray, shared: float, noise: float) -> FloatArray:
    """Inverse covariance of one query's outcomes, [experts, experts]; 0 where not measured."""
    seen = pattern.astype(float)
    count = seen.sum()
    found: FloatArray = np.diag(seen) / noise - np.outer(seen, seen) * shared / (
        noise * (noise + count * shared)
    )
    return found


def _variances(residual: FloatArray) -> tuple[float, float]:
    """(shared, noise) variances of residuals [n, experts] by their mean products; NaN where not measured."""
    seen = np.isfinite(residual)
    count = seen.sum(axis=1)
    filled = np.where(seen, residual, 0.0)
    filled = np.where(seen, filled - filled.sum(axis=0) / np.maximum(seen.sum(axis=0), 1), 0.0)
    pairs = (filled.sum(axis=1) ** 2 - (filled**2).sum(axis=1)).sum()
    possible = float((count * (count - 1)).sum())
    if possible == 0:
        return SHARED, OUTCOME
    shared = max(float(pairs) / possible, LEAST_SHARED)
    return shared, max(float((filled**2).sum() / seen.sum()) - shared, LEAST_NOISE)
