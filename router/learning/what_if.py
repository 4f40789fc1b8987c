"""What policies would have given on logged traffic: value, cost, evidence, and a verdict in words."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from router.core import FloatArray, IntArray
from router.errors import InputError
from router.learning import replay
from router.learning.estimators import (
    LEAST_EFFECTIVE,
    MOST_UNSUPPORTED,
    Estimate,
    Interval,
    Obstacle,
    estimate,
    mean_of,
)
from router.learning.evidence import OUTSIDE, Evidence
from router.learning.logged import LoggedTraffic, RewardKind, units_of
from router.learning.reward_model import cross_fitted
from router.policy import Policy

SOURCES: dict[RewardKind, str] = {
    "judged": "judge a sample of the log, or use --reward ratings",
    "ratings": "clients rate responses with POST /v1/feedback",
}
"""How each kind of reward comes into the log."""
Verdict = Literal["better", "worse", "undecided", "not judged"]


@dataclass(frozen=True, slots=True)
class Judged:
    """One policy on logged traffic."""

    policy_id: str
    folder: str
    estimate: Estimate
    cost_usd: float | None
    """Mean cost of a request, by inverse propensity; `None` where unknown."""
    latency_s: float | None
    verdict: Verdict
    sentence: str

    def as_json(self) -> dict[str, Any]:
        """The policy in `--json`."""
        found = self.estimate
        return {
            "policy_id": self.policy_id,
            "folder": self.folder,
            **_figures(found.doubly_robust),
            "cost_usd": self.cost_usd,
            "latency_s": self.latency_s,
            "effective_n": found.effective_n,
            "unsupported": found.unsupported,
            "ips": _figures(found.inverse_propensity),
            "gain": _figures(found.gain),
            "verdict": self.verdict,
            "sentence": self.sentence,
        }


@dataclass(frozen=True, slots=True)
class WhatIf:
    """All policies on the same traffic."""

    n: int
    reward: RewardKind
    logged: Interval | None
    """Mean reward of the traffic as it was served."""
    left_out: Mapping[str, int]
    policies: tuple[Judged, ...]

    def as_json(self) -> dict[str, Any]:
        """The whole of `--json`."""
        return {
            "n": self.n,
            "reward": self.reward,
            "logged": _figures(self.logged),
            "left_out": dict(self.left_out),
            "policies": [policy.as_json() for policy in self.policies],
        }


def what_if(
    traffic: LoggedTraffic,
    policies: Sequence[tuple[Path, Policy]],
    embed: replay.Embed,
    *,
    reward: RewardKind,
    seed: int = 0,
) -> WhatIf:
    """Judge policies on logged traffic, all with one reward model.

    Raises:
        InputError: there is no policy, the log holds no reward, or lacks what a policy reads.
    """
    if not policies:
        raise InputError("at least one policy is needed")
    if not traffic.decisions:
        raise InputError(_nothing(traffic.left_out, reward))
    evidence = evidence_of(traffic, replay.features(traffic, policies[0][1].encoder, embed))
    predicted = cross_fitted(evidence, seed=seed)
    judged = []
    for folder, policy in policies:
        chosen = columns(traffic, replay.choices(policy, traffic, embed))
        judged.append(_judge(folder, policy, traffic, evidence, chosen, predicted))
    return WhatIf(len(evidence), reward, mean_of(evidence), traffic.left_out, tuple(judged))


def evidence_of(traffic: LoggedTraffic, features: FloatArray) -> Evidence:
    """Logged decisions as arrays, with quality as the reward."""
    decisions, names = traffic.decisions, traffic.candidates
    column = {name: number for number, name in enumerate(names)}
    propensities = np.zeros((len(decisions), len(names)))
    for row, one in enumerate(decisions):
        for name, probability in one.propensities.items():
            propensities[row, column[name]] = probability
    return Evidence(
        actions=np.array([column[one.action] for one in decisions], dtype=int),
        propensities=propensities,
        rewards=np.array([one.quality for one in decisions], dtype=float),
        units=np.array(units_of(decisions), dtype=int),
        features=features,
        weights=np.array([1 / one.sampling_rate for one in decisions], dtype=float),
    )


def columns(traffic: LoggedTraffic, chosen: Sequence[str | None]) -> IntArray:
    """Candidates as columns of the evidence."""
    column = {name: number for number, name in enumerate(traffic.candidates)}
    return np.array([OUTSIDE if name is None else column.get(name, OUTSIDE) for name in chosen], dtype=int)


def _judge(
    folder: Path,
    policy: Policy,
    traffic: LoggedTraffic,
    evidence: Evidence,
    chosen: IntArray,
    predicted: FloatArray,
) -> Judged:
    found = estimate(evidence, chosen, predicted)
    costs = [one.record.cost_usd for one in traffic.decisions]
    latencies = [one.record.latency_s for one in traffic.decisions]
    judged = found.obstacle is None
    return Judged(
        policy.policy_id,
        str(folder),
        found,
        _mean(evidence, chosen, costs) if judged else None,
        _mean(evidence, chosen, latencies) if judged else None,
        verdict_of(found),
        sentence_of(policy.policy_id, found),
    )


def verdict_of(found: Estimate) -> Verdict:
    """Whether the gain over the policy in effect is certain."""
    if found.gain is None:
        return "not judged"
    return "better" if found.gain.low > 0 else "worse" if found.gain.high < 0 else "undecided"


def sentence_of(policy_id: str, found: Estimate) -> str:
    """The verdict in plain words."""
    if found.doubly_robust is None or found.gain is None:
        return f"policy {policy_id} is not judged: {_why(found)}"
    value, gain = found.doubly_robust, found.gain
    figures = (
        f"quality {value.value:.3f} ({value.low:.3f} to {value.high:.3f}), "
        f"{100 * gain.value:+.1f} points ({100 * gain.low:+.1f} to {100 * gain.high:+.1f}) against the "
        "policy in effect"
    )
    words = {
        "better": "would have been better",
        "worse": "would have been worse",
        "undecided": "is not distinguishable from the policy in effect",
    }
    verdict = verdict_of(found)
    return f"policy {policy_id} {words[verdict]}: {figures}"


def _why(found: Estimate) -> str:
    if found.obstacle is Obstacle.NO_EXPLORATION:
        return (
            "the log holds no exploration, so it shows nothing of other choices than its own: set "
            "`explore: {share: 0.02}` in user_config of Router"
        )
    if found.obstacle is Obstacle.UNSUPPORTED:
        return (
            f"the log never makes {found.unsupported:.0%} of its decisions, more than "
            f"{MOST_UNSUPPORTED:.0%}: lower `explore.quality_floor`"
        )
    if found.obstacle is Obstacle.FEW:
        return (
            f"the log is worth {found.effective_n:.0f} conversations for it, fewer than "
            f"{LEAST_EFFECTIVE:.0f}: log more traffic, or raise `explore.share`"
        )
    return "the log holds no reward"


def _mean(evidence: Evidence, chosen: IntArray, values: Sequence[float | None]) -> float | None:
    """Mean of a measured value under the policy's choices, self-normalised; `None` where nothing is known."""
    known = np.array([math.nan if value is None else value for value in values], dtype=float)
    propensity = evidence.propensity_of(chosen)
    matched = (evidence.actions == chosen) & (propensity > 0) & np.isfinite(known)
    if not matched.any():
        return None
    weights = evidence.weights[matched] / propensity[matched]
    return float(weights @ known[matched] / weights.sum())


def _figures(found: Interval | None) -> dict[str, Any]:
    return {"value": None if found is None else found.value, "ci95": None if found is None else found.ci95}


def _nothing(left_out: Mapping[str, int], reward: RewardKind) -> str:
    reasons = ", ".join(f"{count} {why}" for why, count in sorted(left_out.items())) or "no decision at all"
    return f"the log holds no decision with a reward and a probability ({reasons}): {SOURCES[reward]}"
