"""Exploration: the random draw that makes a log evidence about other policies.

A pure function of its arguments: the same seed, unit and candidates give the same draw on every replica
and in a replay. Knows nothing of requests.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

from router.core import Decision, Draw, Exploration

ROUNDING = 1e-12
"""A score this little under a bar reaches it: 0.9 × 0.7 is not quite 0.63."""


def draw(
    exploration: Exploration, unit: str, *, chosen: str, scores: Mapping[str, float], eligible: Sequence[str]
) -> Draw:
    """Choose a candidate for a unit: mostly `chosen`, by chance one of the good eligible experts.

    A unit is a conversation, or a request without one. Its draw is kept through later turns as long as the
    drawn expert stays among the candidates: the order in which a unit prefers experts depends on their
    names alone, not on which of them are candidates.

    Args:
        exploration: share, quality floor and seed.
        unit: what is drawn for.
        chosen: the candidate without exploration; a plan or an expert.
        scores: expert → predicted quality.
        eligible: the experts that may be drawn, without plans.
    """
    known = [name for name in eligible if name in scores]
    bar = exploration.quality_floor * max((scores[name] for name in known), default=0.0)
    candidates = [name for name in known if scores[name] >= bar - ROUNDING]
    if not candidates or exploration.share == 0:
        return Draw(chosen, False, {chosen: 1.0}, exploration, unit)
    propensities = {chosen: 1.0 - exploration.share}
    for name in candidates:
        propensities[name] = propensities.get(name, 0.0) + exploration.share / len(candidates)
    is_drawn = uniform(exploration.seed, unit, "draw") < exploration.share
    action = chosen
    if is_drawn:
        action = min(candidates, key=lambda name: (uniform(exploration.seed, unit, f"expert {name}"), name))
    possible = {name: value for name, value in propensities.items() if value > 0}
    return Draw(action, is_drawn, possible, exploration, unit)


def draw_for(exploration: Exploration, unit: str, decision: Decision) -> Draw:
    """The draw for a policy's decision: its experts, less the ineligible ones.

    Where the request requires a score (`min_quality`), no expert below it is drawn.

    Raises:
        NoEligibleExpertError: no expert is eligible.
    """
    views = decision.experts
    required = -1.0 if decision.required_score is None else decision.required_score - ROUNDING
    scores = {
        name: view.score
        for name, view in views.items()
        if view.eligible and view.score is not None and view.score >= required
    }
    return draw(
        exploration,
        unit,
        chosen=decision.candidate,
        scores=scores,
        eligible=[name for name in decision.ranking if name in scores],
    )


def explored(exploration: Exploration, unit: str, decision: Decision) -> Decision:
    """The decision with its draw, and the drawn candidate first; unchanged where no expert is eligible."""
    if not decision.ranking:
        return decision
    found = draw_for(exploration, unit, decision)
    others = [name for name in decision.ranking if name != found.action]
    return replace(decision, ranking=(found.action, *others), draw=found)


def uniform(seed: int, unit: str, purpose: str) -> float:
    """A number in [0, 1) that depends on nothing but the arguments."""
    text = f"{seed}\0{purpose}\0{unit}".encode("utf-8", "replace")
    return int.from_bytes(hashlib.blake2b(text, digest_size=7).digest(), "big") / 2**56
