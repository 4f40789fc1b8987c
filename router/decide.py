"""Turn scores and costs into rankings, and explain them.

Pure numpy. Knows nothing of encoders, methods or requests in flight, so that serving, evaluation
and the cost–quality curve all decide in the same way, and every user interface gives the same reasons.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
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
    delay: FloatArray | None  # [n, candidates] latency_weight × seconds; `None` where time has no price
    utility: FloatArray  # [n, candidates] score − penalty − delay
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
    seconds: FloatArray | None = None,
) -> Rankings:
    """Rank the candidates for each row.

    With `cost_weight` (0 by default) by utility: score − cost_weight × cost / (cost of the row's most
    expensive eligible expert) − `latency_weight` × seconds; ties go to the cheaper candidate, then to the
    one listed first. With `min_quality` the candidates whose score reaches that fraction of the row's best
    eligible score, cheapest first (ties: higher score, then pool order), then the others by score;
    `latency_weight` × seconds counts there as if it were added to the relative cost. Ineligible experts are
    left out, not moved to the end.

    Args:
        scores: [n, candidates] in [0, 1].
        costs: [n, candidates] US$; NaN counts as the row's most expensive, `None` as no cost at all.
        preferences: one for all rows, or one for each.
        eligible: [n, candidates]; `None` for all.
        experts: the first columns, to which relative costs refer; the others are plans, which may cost
            more than the most expensive expert. `None` for all columns.
        seconds: [n, candidates] to the end of the answer; NaN counts as the mean of the row's known ones.
    """
    n, width = scores.shape
    relative = _relative(costs, eligible, scores.shape, width if experts is None else experts)
    each = [preferences] * n if isinstance(preferences, Preferences) else preferences
    weight = np.array([item.cost_weight or 0.0 for item in each], dtype=np.float64)
    penalty = weight[:, None] * relative
    delay = _delay(seconds, eligible, each)
    utility = scores - penalty
    if delay is not None:
        utility = utility - delay

    # Keys to sort by, ascending: what breaks ties, what decides, the group that comes first. Among equal
    # ones the sort keeps the order of the columns.
    keys: list[FloatArray | BoolArray] = [relative, -utility]
    required = None
    if any(item.min_quality is not None for item in each):
        floor = np.array([np.nan if item.min_quality is None else item.min_quality for item in each])
        best = (scores if eligible is None else np.where(eligible, scores, -np.inf)).max(axis=1)
        with np.errstate(invalid="ignore"):
            required = floor * best
            passes = scores >= required[:, None] - ROUNDING
        has_floor = ~np.isnan(floor)[:, None]
        spent = relative if delay is None else relative + delay
        first = np.where(has_floor, np.where(passes, spent, -scores), keys[1])
        keys = [np.where(has_floor & passes, -scores, relative), first, has_floor & ~passes]
    counts = np.full(n, width)
    if eligible is not None:
        keys.append(~eligible)
        counts = eligible.sum(axis=1)
    order = np.lexsort(keys, axis=1)  # sorts by its last key first
    floors = np.full(n, np.nan) if required is None else required
    return Rankings(order, counts, penalty, delay, utility, floors)


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
    latencies: FloatArray | None = None,
    queues: FloatArray | None = None,
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
        latencies: [n, candidates] milliseconds to the end of the answer; NaN where unknown.
        queues: [n, candidates] milliseconds of it that are due to other requests; NaN where unknown.
    """
    width = len(names) if experts is None else experts
    columns = (
        scores.tolist(),
        _cells(costs, scores.shape),
        _cells(waits, scores.shape),
        rankings.utility.tolist(),
        rankings.penalty.tolist(),
        [[0.0] * scores.shape[1]] * len(scores) if rankings.delay is None else rankings.delay.tolist(),
        _cells(latencies, scores.shape),
        _cells(queues, scores.shape),
    )
    orders, counts, required = rankings.order.tolist(), rankings.eligible.tolist(), rankings.required.tolist()
    everyone, none = [True] * len(names), [None] * len(names)
    decisions = []
    for row, values in enumerate(zip(*columns, strict=True)):
        excluded = exclusions[row]
        eligible: Iterable[bool] = everyone
        why: Iterable[str | None] = none
        if excluded:
            eligible = [name not in excluded for name in names]
            why = [excluded.get(name) for name in names]
        score, cost, wait, *weighed = values
        views = dict(zip(names, map(ExpertView, score, cost, wait, eligible, why, *weighed), strict=True))
        others = {} if plans is None else {name: plans(row, name, views.pop(name)) for name in names[width:]}
        decisions.append(
            Decision(
                ranking=tuple([names[column] for column in orders[row][: counts[row]]]),
                experts=views,
                policy_id=policy_id,
                unfamiliar=bool(unfamiliar[row]),
                preferences=preferences[row],
                required_score=_known(required[row]),
                plans=others,
            )
        )
    return decisions


def reasons(decision: Decision) -> dict[str, str]:
    """Candidate → one sentence: why it comes first, why it comes later, or why it is excluded."""
    views = {**decision.experts, **{name: plan.view for name, plan in decision.plans.items()}}
    sentences = {name: _reason(decision, name, view) for name, view in views.items()}
    ranked = {name: views[name] for name in decision.ranking if name in views}
    if decision.required_score is None and any(view.latency_penalty for view in ranked.values()):
        # Of equal ones the first in the ranking counts.
        untimed = max(ranked, key=lambda name: (ranked[name].score or 0.0) - ranked[name].cost_penalty)
        if untimed != decision.ranking[0]:
            sentences[untimed] += "; it would come first if time did not count"
    return sentences


def _reason(decision: Decision, name: str, view: ExpertView) -> str:
    first = bool(decision.ranking) and decision.ranking[0] == name
    if not view.eligible:
        return f"excluded: {view.excluded_because or 'not eligible'}"
    if view.score is None or view.utility is None:
        return "first in the static ranking" if first else "later in the static ranking"
    if decision.required_score is not None:
        if view.score < decision.required_score - ROUNDING:
            return f"below the required quality: {view.score:.2f}, required {decision.required_score:.2f}"
        if view.latency_penalty:
            return f"has the required quality, {'least' if first else 'more'} cost and time together"
        return "cheapest with the required quality" if first else "has the required quality, costs more"
    if view.cost_penalty or view.latency_penalty:
        cost = f" − {view.cost_penalty:.2f} for cost" if view.cost_penalty else ""
        time = f" − {view.latency_penalty:.2f} for time" if view.latency_penalty else ""
        terms = f"{view.score:.2f}{cost}{time} = {view.utility:.2f}"
        return f"{'highest' if first else 'lower'} utility: {terms}"
    return "highest predicted quality" if first else "lower predicted quality"


def _known(value: float) -> float | None:
    """NaN stands for what is unknown, and alone differs from itself."""
    return value if value == value else None


def _cells(values: FloatArray | None, shape: tuple[int, ...]) -> list[list[float | None]]:
    """The rows of an array as lists, `None` for NaN."""
    if values is None:
        return [[None] * shape[1]] * shape[0]
    total = np.add.reduce(values, axis=None)
    if total == total:  # one pass: a NaN anywhere makes it NaN
        return values.tolist()  # type: ignore[no-any-return]
    if np.isnan(values).all():
        return [[None] * shape[1]] * shape[0]
    return [[_known(value) for value in row] for row in values.tolist()]


def exclusions(
    excluded: Mapping[str, str],
    wanted: Preferences,
    names: Sequence[str],
    predicted: Sequence[FloatArray | None],
) -> dict[str, str]:
    """Candidate → why it is not eligible: the caller's word first, then the limits.

    What is unknown exceeds no limit.

    Args:
        excluded: the caller's word.
        wanted: the limits.
        names: the candidates, as the columns.
        predicted: cost in US dollars, wait and whole time in milliseconds, each [candidates] or unknown.
    """
    reasons = dict(excluded)
    limits = (
        (wanted.max_cost_usd, "expected cost {:.3g} US$ is above max_cost_usd {:.3g}"),
        (wanted.max_ttft_ms, "expected wait {:.0f} ms is above max_ttft_ms {:.0f}"),
        (wanted.max_latency_ms, "expected time {:.0f} ms is above max_latency_ms {:.0f}"),
    )
    for (most, words), values in zip(limits, predicted, strict=True):
        if most is not None and values is not None:
            for column in np.flatnonzero(values > most):
                reasons.setdefault(names[column], words.format(values[column], most))
    return reasons


def _delay(
    seconds: FloatArray | None, eligible: BoolArray | None, each: Sequence[Preferences]
) -> FloatArray | None:
    """What the time takes off each candidate's utility, [n, candidates]; `None` where it has no price."""
    if seconds is None or not any(item.latency_weight for item in each):
        return None
    weight = np.array([item.latency_weight or 0.0 for item in each], dtype=np.float64)
    finite = np.isfinite(seconds)
    delay: FloatArray
    if finite.all():
        delay = weight[:, None] * seconds
        return delay
    counted = finite if eligible is None else finite & eligible
    known = np.where(counted, seconds, 0.0)
    mean = known.sum(axis=1, keepdims=True) / np.maximum(counted.sum(axis=1, keepdims=True), 1)
    delay = weight[:, None] * np.where(finite, seconds, mean)
    return delay


def _relative(
    costs: FloatArray | None, eligible: BoolArray | None, shape: tuple[int, ...], experts: int
) -> FloatArray:
    """Costs as fractions of the cost of each row's most expensive eligible expert, [n, candidates]."""
    if costs is None:
        return np.zeros(shape)
    finite = np.isfinite(costs)
    if eligible is None and finite.all():
        most = costs[:, :experts].max(axis=1, keepdims=True)
        if most.min(initial=1.0) > 0:
            simple: FloatArray = costs / most
            return simple
    counts = finite if eligible is None else finite & eligible
    most = np.where(counts, costs, 0.0)[:, :experts].max(axis=1, keepdims=True)
    known = np.where(finite, costs, most)
    relative: FloatArray = np.zeros(known.shape)
    np.divide(known, most, out=relative, where=most > 0)
    return relative
