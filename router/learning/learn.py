"""A policy from logged traffic: trained on the earlier part, kept only if the later part proves it better.

The parts are by conversation and time. Outcomes have gaps: one expert for most queries.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import numpy as np

from router.core import Preferences
from router.data.dataset import same_query, to_dataset
from router.errors import InputError
from router.learning import replay
from router.learning.estimators import Estimate, estimate
from router.learning.gates import alpha_of, passes
from router.learning.logged import LoggedDecision, LoggedTraffic, units_of
from router.learning.reward_model import cross_fitted
from router.learning.what_if import columns, evidence_of
from router.policy import Policy
from router.training.train import train

TRAINED_SHARE = 0.6
"""Share of the conversations, the earlier ones, that are trained on."""
LEAST_CONVERSATIONS = 50
MEASURED = ("prompt_tokens", "completion_tokens", "cost_usd", "latency_s", "ttft_s")


@dataclass(frozen=True)
class Learned:
    """A trained policy and what its gate found."""

    candidate: Policy
    """Unsaved."""
    gate: Estimate
    alpha: float
    trained_on: int
    """Decisions."""
    gated_on: int
    kept: bool


def learn(
    traffic: LoggedTraffic,
    current: Policy,
    embed: replay.Embed,
    *,
    method: str = "auto",
    tried: int = 0,
    seed: int = 0,
    notify: Callable[[str], None] = lambda line: None,
) -> Learned:
    """Train a policy on a log, and judge it on decisions that it never saw.

    The preferences are those of the policy in effect: what is learned is quality, not what it may cost.

    Args:
        traffic: logged decisions with rewards and texts.
        current: the policy in effect.
        embed: encodes texts.
        method: of the new policy.
        tried: gates that were tried on this log before.
        seed: of training and of the reward model.
        notify: called with a line for each step.

    Raises:
        InputError: too few conversations, no texts, or another policy routed the later part.
        OutcomesError: too few outcomes of an expert.
    """
    earlier, later = parts(traffic)
    rows = outcomes(earlier.decisions)
    dataset = to_dataset(rows, where="the log")
    notify(f"training {method} on {len(earlier.decisions)} decisions, {len(dataset)} different queries")
    candidate = train(
        dataset.only([name for name in current.pool.names if name in dataset.pool]),
        embed(current.encoder, dataset.texts),
        current.encoder,
        method=method,
        seed=seed,
        notify=notify,
    )
    profiles = [current.pool[name] for name in candidate.pool.names]
    candidate = replace(candidate, pool=type(candidate.pool)(profiles), preferences=_preferences(current))
    gated = of_policy(later, current.policy_id)
    notify(f"gate on {len(gated.decisions)} later decisions")
    evidence = evidence_of(gated, replay.features(gated, current.encoder, embed))
    chosen = columns(gated, replay.choices(candidate, gated, embed))
    alpha = alpha_of(tried)
    found = estimate(evidence, chosen, cross_fitted(evidence, seed=seed), alpha=2 * alpha)
    return Learned(candidate, found, alpha, len(earlier.decisions), len(gated.decisions), kept=passes(found))


def parts(traffic: LoggedTraffic) -> tuple[LoggedTraffic, LoggedTraffic]:
    """The earlier and the later part by the start of each conversation; none is in both.

    Raises:
        InputError: there are too few conversations.
    """
    numbers = units_of(traffic.decisions)
    conversations = len(set(numbers))
    if conversations < LEAST_CONVERSATIONS:
        raise InputError(
            f"learning needs at least {LEAST_CONVERSATIONS} conversations with a reward, the log holds "
            f"{conversations}"
        )
    # Numbers follow the first turn, as decisions are in the order of time.
    bar = int(conversations * TRAINED_SHARE)
    pairs = list(zip(numbers, traffic.decisions, strict=True))
    earlier = tuple(one for number, one in pairs if number < bar)
    seen = {same_query(one.record.query) for one in earlier if one.record.query is not None}
    # A query that was trained on proves nothing about others.
    later = tuple(
        one for number, one in pairs if number >= bar and same_query(one.record.query or "") not in seen
    )
    return replace(traffic, decisions=earlier), replace(traffic, decisions=later)


def of_policy(traffic: LoggedTraffic, policy_id: str) -> LoggedTraffic:
    """The decisions that a policy made.

    Raises:
        InputError: there is none.
    """
    found = tuple(one for one in traffic.decisions if one.record.policy == policy_id)
    if not found:
        others = sorted({str(one.record.policy) for one in traffic.decisions}) or ["none"]
        raise InputError(
            f"policy {policy_id} made no decision in the later part of the log, which is of "
            f"{', '.join(others)}: name the policy in effect with --policy"
        )
    return replace(traffic, decisions=found)


def outcomes(decisions: Sequence[LoggedDecision]) -> list[dict[str, Any]]:
    """Rows of outcomes, one for each (query, expert), of the expert that responded.

    Raises:
        InputError: the log holds no texts.
    """
    groups: dict[tuple[str, str], list[LoggedDecision]] = {}
    for one in decisions:
        if one.record.query is not None and one.record.expert is not None and one.record.plan is None:
            groups.setdefault((one.record.query, one.record.expert), []).append(one)
    if not groups:
        raise InputError(
            "learning needs the texts of queries: set `log.queries: true` in user_config of Ingress"
        )
    return [_row(query, expert, group) for (query, expert), group in groups.items()]


def _row(query: str, expert: str, group: Sequence[LoggedDecision]) -> dict[str, Any]:
    digest = sha256(query.encode("utf-8", "replace")).hexdigest()[:16]
    row: dict[str, Any] = {"query_id": digest, "query": query, "expert": expert}
    row["quality"] = float(np.mean([one.quality for one in group]))
    for name in MEASURED:
        values = [value for one in group if (value := getattr(one.record, name)) is not None]
        row[name] = float(np.mean(values)) if values else None
    return row


def _preferences(current: Policy) -> Preferences:
    """The preference in effect of requests without plans: a learned policy has none."""
    plain = current.preferences_without_plans
    return current.preferences if plain is None else plain
