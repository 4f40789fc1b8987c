"""Turn scores and costs into rankings, and explain them.

Pure numpy. Knows nothing of encoders, methods or requests in flight, so that serving, evaluation
and the cost–quality curve all decide in the same way, and every user interface gives the same reasons.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from router.core import BoolArray, Decision, ExpertView, FloatArray, IntArray, PlanView, Preferences

ROUNDING = 1e-12
"""A score this little under the bar of `min_quality` reaches it: 0.9 × 0.7 is not quite 0.63."""


@dataclass(frozen=True, slots=True)
class Rankings:
    """Candidates of each row, best first, and what they were ranked by."""

    order: IntArray  # [n, candidates] columns; the eligible ones come first
    eligible: IntArray  # [n] how many of them are eligible
    penalty: FloatArray  # [n, candidates] cost_weight × relative cost
    utility: FloatArray  # [n, candidates] score − penalty
    required: FloatArray  # [n] score that `min_quality` requires; NaN without it

    @property
    def best(self) -> IntArray:
        """Each row's first choice, [n]; meaningless where `eligible` is 0."""
        return self.order[:, 0]

    def row(self, index: int) -> list[int]:
        """The eligible columns of one row, best first."""
        return [int(column) for column in self.order[index, : self.eligible[index]]]


def decide(
    scores: FloatArray,
    costs: FloatArray | None,
    *,
    preferences: Sequence[Preferences] | Preferences,
    eligible: BoolArray | None = None,
    experts: int | None = None,
) -> Rankings:
    """Rank the candidates for each row.

    With `cost_weight` (0 by default) by utility: score − cost_weight × cost / (cost of the row's most
    expensive eligible expert); ties go to the cheaper candidate, then to the one listed first. With
    `min_quality` the candidates whose score reaches that fraction of the row's best eligible score,
    cheapest first (ties: higher score, then pool order), then the others by score. Ineligible experts
    are left out, not moved to the end.

    Args:
        scores: [n, candidates] in [0, 1].
        costs: [n, candidates] US$; NaN counts as the row's most expensive, `None` as no cost at all.
        preferences: one for all rows, or one for each.
        eligible: [n, candidates]; `None` for all.
        experts: the first columns, to which relative costs refer; the others are plans, which may cost
            more than the most expensive expert. `None` for all columns.
    """
    n, width = scores.shape
    allowed = np.ones((n, width), dtype=bool) if eligible is None else eligible
    relative = _relative(costs, allowed, width if experts is None else experts)
    each = [preferences] * n if isinstance(preferences, Preferences) else preferences
    weight = np.array([item.cost_weight or 0.0 for item in each], dtype=np.float64)
    floor = np.array([np.nan if item.min_quality is None else item.min_quality for item in each])

    # Keys to sort by, ascending: the group that comes first, what decides within it, what breaks its ties.
    behind = np.zeros((n, width), dtype=bool)
    penalty = weight[:, None] * relative
    utility = scores - penalty
    first, second = -utility, relative
    required = np.full(n, np.nan)
    if not np.isnan(floor).all():
        best = np.where(allowed, scores, -np.inf).max(axis=1)
        with np.errstate(invalid="ignore"):
            required = floor * best
            passes = allowed & (scores >= required[:, None] - ROUNDING)
        has_floor = ~np.isnan(floor)[:, None]
        behind = has_floor & ~passes
        first = np.where(has_floor, np.where(passes, relative, -scores), first)
        second = np.where(has_floor & passes, -scores, second)
    columns = np.broadcast_to(np.arange(width), (n, width))
    order = np.lexsort((columns, second, first, behind, ~allowed), axis=1)  # sorts by its last key first
    return Rankings(order, allowed.sum(axis=1), penalty, utility, required)


def as_decisions(
    rankings: Rankings,
    scores: FloatArray,
    costs: FloatArray | None,
    waits: FloatArray,
    *,
    names: Sequence[str],
    exclusions: Sequence[Mapping[str, str]],
    preferences: Sequence[Preferences],
    policy_id: str,
    unfamiliar: Sequence[bool] | BoolArray,
    plans: Callable[[int, str, ExpertView], PlanView] | None = None,
    experts: int | None = None,
) -> list[Decision]:
    """The rows of `rankings` as values that travel.

    Args:
        rankings: of these scores and costs.
        scores: [n, candidates] in [0, 1].
        costs: [n, candidates] US$; NaN where unknown.
        waits: [n, candidates] milliseconds; NaN where unknown.
        names: the candidates, in the order of the columns.
        exclusions: for each row, ineligible candidate → reason.
        preferences: in effect for each row.
        policy_id: of the policy that scored.
        unfamiliar: [n] whether scores are the pool's means.
        plans: row, name and view of a plan → the plan's view; needed where there are plans.
        experts: the first columns; the others are plans. `None` for all.
    """
    width = len(names) if experts is None else experts
    known_costs = np.full(scores.shape, np.nan) if costs is None else costs
    table = zip(
        scores.tolist(),
        known_costs.tolist(),
        waits.tolist(),
        rankings.utility.tolist(),
        rankings.penalty.tolist(),
        exclusions,
        strict=True,
    )
    decisions = []
    for row, (*columns, excluded) in enumerate(table):
        views = {
            name: ExpertView(
                score, _known(cost), _known(wait), name not in excluded, excluded.get(name), utility, penalty
            )
            for name, score, cost, wait, utility, penalty in zip(names, *columns, strict=True)
        }
        others = {} if plans is None else {name: plans(row, name, views.pop(name)) for name in names[width:]}
        decisions.append(
            Decision(
                ranking=tuple(names[column] for column in rankings.row(row)),
                experts=views,
                policy_id=policy_id,
                unfamiliar=bool(unfamiliar[row]),
                preferences=preferences[row],
                required_score=_known(float(rankings.required[row])),
                plans=others,
            )
        )
    return decisions


def reasons(decision: Decision) -> dict[str, str]:
    """Candidate → one sentence: why it comes first, why it comes later, or why it is excluded."""
    views = {**decision.experts, **{name: plan.view for name, plan in decision.plans.items()}}
    return {name: _reason(decision, name, view) for name, view in views.items()}


def _reason(decision: Decision, name: str, view: ExpertView) -> str:
    first = bool(decision.ranking) and decision.ranking[0] == name
    if not view.eligible:
        return f"excluded: {view.excluded_because or 'not eligible'}"
    if view.score is None or view.utility is None:
        return "first in the static ranking" if first else "later in the static ranking"
    if decision.required_score is not None:
        if view.score < decision.required_score - ROUNDING:
            return f"below the required quality: {view.score:.2f}, required {decision.required_score:.2f}"
        return "cheapest with the required quality" if first else "has the required quality, costs more"
    if view.cost_penalty:
        terms = f"{view.score:.2f} − {view.cost_penalty:.2f} for cost = {view.utility:.2f}"
        return f"{'highest' if first else 'lower'} utility: {terms}"
    return "highest predicted quality" if first else "lower predicted quality"


def _known(value: float) -> float | None:
    """NaN stands for what is unknown, and alone differs from itself."""
    return value if value == value else None


def _relative(costs: FloatArray | None, allowed: BoolArray, experts: int) -> FloatArray:
    """Costs as fractions of the cost of each row's most expensive eligible expert, [n, candidates]."""
    if costs is None:
        return np.zeros(allowed.shape)
    counted = np.where(allowed & np.isfinite(costs), costs, 0.0)[:, :experts]
    most = counted.max(axis=1, keepdims=True)
    known = np.where(np.isfinite(costs), costs, most)
    relative: FloatArray = np.zeros(known.shape)
    np.divide(known, most, out=relative, where=most > 0)
    return relative
