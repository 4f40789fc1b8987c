"""Enumerate plans over a pool, and choose the few whose gain on recorded outcomes is certain enough.

A plan is compared with the cost–quality front of the experts and of the plans chosen before it: at its mean
cost, query by query. It is kept by the lower bound of that paired gain; where none is above 0, none is kept.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from router.core import FloatArray, IntArray
from router.plans.acceptance import AcceptanceModel
from router.plans.plan import Calls, Plan
from router.plans.replay import Evidence, Recording, Replayed

THRESHOLDS = (0.7,)
"""Probabilities to be right from which enumerated plans accept."""
HOLD_TOKENS = 16
"""Tokens after which enumerated plans judge a stream by its beginning."""
MOST_KEPT = 8
CERTAINTY_Z = 0.5
"""Standard errors by which a plan's gain must be above 0."""
BESIDE = 3
"""Plans of the highest quality that are kept beside those of the front, where they gain on the experts.

Among near equals the scores choose for each query."""
SLACK = 0.02
"""Mean quality by which an `else` expert may be below the lesser member: a third view has its worth."""
MOST_EXPERTS = 12
"""Experts of which pairs are made; a larger pool's best."""
LEAST_KNOWN = 0.95
"""Share of the queries on which every member's answer must be recorded."""
LEAST_ACCEPTED = 0.05
"""Share of the queries on which a plan must accept, and on which it must reject."""


@dataclass(frozen=True)
class Tried:
    """One plan on recorded outcomes, each row judged by an acceptance model that did not see it."""

    plan: Plan
    outcome: Replayed
    otherwise: int
    """Column of the `else` expert, whose outcome counts where a member's answer is not recorded."""


class Trials:
    """Plans replayed on a recording, by acceptance models that are fitted across folds.

    Args:
        recording: of the training queries.
        scores: [n, experts] by methods that did not see the row.
        folds: [n].
    """

    def __init__(self, recording: Recording, scores: FloatArray, folds: IntArray) -> None:
        self._recording, self._scores, self._folds = recording, scores, folds
        self._found: dict[object, tuple[Evidence, FloatArray]] = {}

    def enumerate(self) -> list[Plan]:
        """Every plan that is tried."""
        return list(enumerated(self._recording))

    def of(self, plan: Plan) -> Tried:
        """A plan's outcomes."""
        evidence, p_right = self._judged(plan)
        column = self._recording.outcomes.pool.column(plan.otherwise)
        return Tried(plan, self._recording.replay(plan, evidence, p_right), column)

    def calls(self, plan: Plan) -> Calls:
        """What the plan's calls take, beside its members' complete answers."""
        return self._recording.calls_of(plan)

    def model(self, plan: Plan) -> AcceptanceModel:
        """The plan's acceptance model, fitted on all rows."""
        evidence, _ = self._judged(plan)
        rows = np.flatnonzero(evidence.known)
        return AcceptanceModel.fit_features(evidence.table[rows], evidence.quality[rows])

    def _judged(self, plan: Plan) -> tuple[Evidence, FloatArray]:
        if plan.evidence_key not in self._found:
            evidence = self._recording.evidence(plan, self._scores)
            p_right = np.full(len(evidence.known), np.nan)
            for fold in np.unique(self._folds):
                inside = np.flatnonzero((self._folds != fold) & evidence.known)
                outside = np.flatnonzero((self._folds == fold) & evidence.known)
                if len(inside) and len(outside):
                    model = AcceptanceModel.fit_features(evidence.table[inside], evidence.quality[inside])
                    p_right[outside] = model.p_right_features(evidence.table[outside])
            self._found[plan.evidence_key] = (evidence, p_right)
        return self._found[plan.evidence_key]


def enumerated(recording: Recording) -> Iterator[Plan]:
    """Pairs of experts, votes where samples are recorded, checks where log-probabilities are.

    A check by the beginning of a stream is tried beside the one by all of it, where answers are longer.

    The `else` expert is on average about as good as the lesser member, or better.
    """
    quality = recording.outcomes.quality
    means = dict(zip(recording.outcomes.pool.names, np.nanmean(quality, axis=0).tolist(), strict=True))
    names = sorted(means, key=lambda name: (means[name], name))[-MOST_EXPERTS:]
    asked: list[tuple[tuple[str, ...], int, int | None]] = [
        (pair, 1, None) for pair in combinations(names, 2)
    ]
    asked += [((name,), count, None) for name in names if (count := recording.samples_of(name)) > 1]
    if recording.has_logprobs:
        asked += [((name,), 1, None) for name in names]
        asked += [((name,), 1, HOLD_TOKENS) for name in names if recording.is_longer(name, HOLD_TOKENS)]
    for members, samples, hold in asked:
        # The accepted answer is the first member's: the better one's, where they differ.
        ask = tuple(sorted(members, key=lambda name: -means[name]))
        for other in names:
            if other in ask or means[other] < means[ask[-1]] - SLACK:
                continue
            for at_least in THRESHOLDS:
                kind = "vote" if samples > 1 else "agree" if len(ask) > 1 else "hold" if hold else "check"
                name = f"{kind}-{'-'.join(ask)}-else-{other}-{round(100 * at_least)}"
                yield Plan(name, ask, other, at_least, samples, hold)


def choose(
    tried: Sequence[Tried], quality: FloatArray, costs_usd: FloatArray | None, rows: IntArray
) -> list[Plan]:
    """The plans to keep, by these rows alone.

    Args:
        tried: the plans.
        quality: [n, experts] measured.
        costs_usd: [n, experts] measured; `None` where unknown: then quality alone counts.
        rows: those that may decide.
    """
    front, options = _measured(tried, quality, costs_usd, rows)
    kept: list[Plan] = []
    while options and len(kept) < MOST_KEPT:
        bounds = {plan: front.lower_bound(*columns) for plan, columns in options.items()}
        best = max(bounds, key=lambda plan: bounds[plan])
        if bounds[best] <= 0:
            break
        front = front.with_column(*options.pop(best))
        kept.append(best)
    experts, _ = _measured((), quality, costs_usd, rows)
    beside = [plan for plan, columns in options.items() if experts.lower_bound(*columns) > 0]
    beside.sort(key=lambda plan: -float(options[plan][0].mean()))
    return kept + beside[:BESIDE]


def gain_bounds(tried: Sequence[Tried], quality: FloatArray, costs_usd: FloatArray | None) -> list[float]:
    """The lower bound of each plan's gain over the experts' front; minus infinity where it is no option."""
    front, options = _measured(tried, quality, costs_usd, np.arange(len(quality)))
    return [front.lower_bound(*options[one.plan]) if one.plan in options else -np.inf for one in tried]


def _measured(
    tried: Sequence[Tried], quality: FloatArray, costs_usd: FloatArray | None, rows: IntArray
) -> tuple["_Front", dict[Plan, tuple[FloatArray, FloatArray]]]:
    """The experts' front, and each plan's quality and cost on the same rows."""
    paid = np.zeros(quality.shape) if costs_usd is None else costs_usd
    rows = rows[np.isfinite(quality[rows] + paid[rows]).all(axis=1)]
    options = {}
    for one in tried:
        known = np.isfinite(one.outcome.quality[rows])
        accepted = one.outcome.accepted[rows][known]
        if not len(rows) or known.mean() < LEAST_KNOWN:
            continue
        if LEAST_ACCEPTED <= float(accepted.mean()) <= 1 - LEAST_ACCEPTED:
            cost = paid[:, one.otherwise] if one.outcome.cost_usd is None else one.outcome.cost_usd
            gained = np.where(known, one.outcome.quality[rows], quality[rows, one.otherwise])
            spent = np.where(known, cost[rows], paid[rows, one.otherwise])
            options[one.plan] = (gained, np.zeros(len(rows)) if costs_usd is None else spent)
    return _Front(quality[rows], paid[rows]), options


class _Front:
    """The candidates on the non-decreasing convex hull of mean cost and quality."""

    def __init__(self, quality: FloatArray, costs: FloatArray) -> None:
        self._quality, self._costs = quality, costs
        means, spent = quality.mean(axis=0), costs.mean(axis=0)
        kept: list[int] = []
        for column in np.lexsort((-means, spent)):
            if kept and means[column] <= means[kept[-1]]:
                continue
            while len(kept) > 1 and _under(spent[kept[-2:]], means[kept[-2:]], spent[column], means[column]):
                kept.pop()
            kept.append(int(column))
        self._at, self._spent = kept, spent[kept]

    def with_column(self, quality: FloatArray, costs: FloatArray) -> "_Front":
        return _Front(np.column_stack([self._quality, quality]), np.column_stack([self._costs, costs]))

    def lower_bound(self, quality: FloatArray, costs: FloatArray) -> float:
        """Lower bound of the gain [n] over the front at the same mean cost, by paired differences."""
        share = np.interp(costs.mean(), self._spent, np.arange(len(self._at), dtype=float))
        low = int(share)
        high = min(low + 1, len(self._at) - 1)
        mixed = self._quality[:, self._at[low]] * (1 - (share - low))
        mixed = mixed + self._quality[:, self._at[high]] * (share - low)
        gain = quality - mixed
        return float(gain.mean() - CERTAINTY_Z * gain.std() / np.sqrt(len(gain)))


def _under(x: FloatArray, y: FloatArray, then_x: float, then_y: float) -> bool:
    """Whether the second of two points lies on or under the line from the first to a third."""
    return bool((y[1] - y[0]) * (then_x - x[0]) <= (then_y - y[0]) * (x[1] - x[0]))
