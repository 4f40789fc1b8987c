"""Drift: what a policy predicted against what its traffic became, per expert and over time.

An earlier window of the log is compared with a later one. Each finding has an interval, so that a small
window names no expert by chance.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import NormalDist
from types import MappingProxyType
from typing import Any

import numpy as np

from router.learning.record import DecisionRecord
from router.learning.replay import SHORT, Embed, decoded
from router.policy import Policy

ALPHA = 0.01
"""Error probability of each finding, before it is divided among the experts and kinds."""
LEAST = 30
"""Values in each window below which nothing is found."""
LATER_SHARE = 0.5
MOST_TEXTS = 4000
"""Texts that are encoded for their distance, at most: enough to be certain of the least difference."""
LEAST_DIFFERENCE = {"quality": 0.03, "cost": 0.1, "unfamiliar": 0.05, "distance": 0.05}
"""Smaller differences are no drift, however certain: points of quality, relative cost, share of queries, and
cosine distance to the nearest training query."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One difference between the windows."""

    kind: str
    expert: str | None
    """`None` for all traffic."""
    earlier: float
    later: float
    low: float
    """Interval of the difference, later less earlier."""
    high: float
    drifted: bool


@dataclass(frozen=True)
class Drift:
    """All findings on a log."""

    n_earlier: int
    n_later: int
    findings: tuple[Finding, ...] = field(default=())

    @property
    def experts(self) -> tuple[str, ...]:
        """Experts that drifted."""
        return tuple(sorted({one.expert for one in self.findings if one.drifted and one.expert is not None}))

    def as_json(self) -> dict[str, Any]:
        """The whole of `--json`."""
        return {
            "n_earlier": self.n_earlier,
            "n_later": self.n_later,
            "drifted": list(self.experts),
            "findings": [asdict(one) for one in self.findings],
        }


def distances(decisions: Sequence[DecisionRecord], policy: Policy, embed: Embed) -> dict[str, float]:
    """Request → cosine distance of its query to the nearest training query of a policy.

    Of the policy's own decisions, as far as the log has embeddings by its encoder, or texts. Where it has
    more than `MOST_TEXTS` texts alone, that many are encoded, as far apart in the log as they may be.

    Args:
        decisions: of the log, in the order of time.
        policy: the policy.
        embed: encodes texts, where they are needed.

    Raises:
        EncoderError: they are, and the encoder is not there.
    """
    own = [one for one in decisions if one.policy == policy.policy_id]
    short, dimension = policy.encoder.sha256[:SHORT], policy.encoder.dimension
    rows = {one.request_id: decoded(one.embedding or "") for one in own if one.encoder == short}
    known = {name: row for name, row in rows.items() if row is not None and len(row) == dimension}
    texts = {
        one.request_id: one.query for one in own if one.query is not None and one.request_id not in known
    }
    names = list(texts)
    if count := min(MOST_TEXTS, len(names)):
        names = [names[at * len(names) // count] for at in range(count)]
        known |= dict(zip(names, embed(policy.encoder, [texts[name] for name in names]), strict=True))
    if not known:
        return {}
    nearest = policy.guard.nearest(np.stack(list(known.values())))
    return dict(zip(known, (1 - nearest).tolist(), strict=True))


def drift(
    decisions: Sequence[DecisionRecord],
    rewards: Mapping[str, float],
    policy_id: str,
    distances: Mapping[str, float] = MappingProxyType({}),
) -> Drift:
    """Compare the later half of a policy's decisions with the earlier half.

    Args:
        decisions: of the log, in the order of time.
        rewards: request → measured quality of its response.
        policy_id: of the policy whose predictions are examined.
        distances: request → distance of its query to the training queries.
    """
    own = [one for one in decisions if one.policy == policy_id and one.scores is not None]
    bar = int(len(own) * (1 - LATER_SHARE))
    later = {one.request_id for one in own[bar:]}
    experts = sorted({one.expert for one in own if one.expert is not None})
    alpha = ALPHA / (2 * len(experts) + 2)
    found = [
        _compare("unfamiliar", None, own, later, lambda one: float(one.unfamiliar), alpha),
        _compare("distance", None, own, later, lambda one: distances.get(one.request_id), alpha),
    ]
    for expert in experts:
        answered = [one for one in own if one.expert == expert]
        found.append(
            _compare("quality", expert, answered, later, lambda one: _quality_error(one, rewards), alpha)
        )
        found.append(_compare("cost", expert, answered, later, _cost_error, alpha))
    return Drift(bar, len(own) - bar, tuple(one for one in found if one is not None))


def _compare(
    kind: str,
    expert: str | None,
    decisions: Sequence[DecisionRecord],
    later: set[str],
    value: Callable[[DecisionRecord], float | None],
    alpha: float,
) -> Finding | None:
    """One value in both windows; `None` where a window holds too few."""
    windows: tuple[list[float], list[float]] = ([], [])
    for one in decisions:
        if (number := value(one)) is not None:
            windows[one.request_id in later].append(number)
    if min(map(len, windows)) < LEAST:
        return None
    means = [float(np.mean(window)) for window in windows]
    # Two values 1 apart are added, so that a window of equal values has a spread.
    variance = sum((float(np.var(window)) * len(window) + 0.5) / len(window) ** 2 for window in windows)
    radius = NormalDist().inv_cdf(1 - alpha / 2) * math.sqrt(variance)
    difference = means[1] - means[0]
    certain = abs(difference) > radius and abs(difference) >= LEAST_DIFFERENCE[kind]
    return Finding(kind, expert, means[0], means[1], difference - radius, difference + radius, certain)


def _quality_error(one: DecisionRecord, rewards: Mapping[str, float]) -> float | None:
    """Measured quality less the predicted one."""
    predicted = None if one.scores is None or one.expert is None else one.scores.get(one.expert)
    reward = rewards.get(one.request_id)
    return None if predicted is None or reward is None else reward - predicted


def _cost_error(one: DecisionRecord) -> float | None:
    """Logarithm of observed over predicted cost: a factor counts alike in both directions."""
    predicted = None if one.costs_usd is None or one.expert is None else one.costs_usd.get(one.expert)
    if not predicted or not one.cost_usd:
        return None
    return math.log(one.cost_usd / predicted)
