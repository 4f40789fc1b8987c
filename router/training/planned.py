"""Add plans to a policy: choose them, learn their scores and acceptance, and prove that they help.

Choice is nested: on each fold only those plans count that the other folds choose by themselves, so that the
default preference and the proof come from queries that did not choose the plan.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from router.calibration import Calibration
from router.core import BoolArray, FloatArray, IntArray, Preferences, QueryBatch, TrainingSet
from router.costs import Regression
from router.data.dataset import Dataset
from router.decide import decide
from router.errors import PlanError
from router.methods.contract import RoutingMethod
from router.methods.hull import area
from router.methods.linear import LinearRouter
from router.methods.shrink import global_means
from router.plans.choice import MOST_KEPT, Trials, Tried, choose
from router.plans.composition import composed_costs
from router.plans.plan import Calls, Plan, check_plans
from router.plans.plan_set import RATE_PENALTY, PlanSet
from router.plans.replay import Recording
from router.policy import Policy
from router.training.preference import COST_WEIGHTS, PreferenceChoice, choose_preference

PROOF_Z = 1.0
"""Standard errors by which the gain of plans over the policy without them must be above 0."""
RESAMPLES = 200
CERTAINTY_Z = 0.0
"""Standard errors in the margin of the preference for equal quality; see docs/plans.md."""
Fitted = tuple[RoutingMethod, Calibration | None, FloatArray]
Fit = Callable[[TrainingSet], Fitted]
"""Fits a method, with its calibration and calibrated out-of-fold scores."""


@dataclass(frozen=True)
class Material:
    """What training knows of the experts before it comes to plans; each row by models that did not see it."""

    dataset: Dataset
    queries: QueryBatch
    folds: IntArray
    scores: FloatArray  # [n, experts]
    expected: FloatArray | None  # [n, experts] US$
    preferences: PreferenceChoice


@dataclass(frozen=True)
class Extended:
    """Measured outcomes of experts and plans."""

    quality: FloatArray  # [n, candidates]
    costs_usd: FloatArray | None

    def complete(self) -> IntArray:
        """Rows in which every candidate's quality is known."""
        return np.flatnonzero(np.isfinite(self.quality).all(axis=1))


def with_plans(
    policy: Policy,
    material: Material,
    wanted: Sequence[Plan] | Literal["auto"],
    *,
    fit: Fit,
    notify: Callable[[str], None] = lambda line: None,
) -> Policy:
    """The policy with plans, or without any where none helps; unsaved.

    Args:
        policy: trained on the same outcomes, without plans.
        material: what its training knew.
        wanted: `auto`, or plans that are kept whatever they gain.
        fit: as the policy's method was fitted.
        notify: called with a line for each step.

    Raises:
        PlanError: given plans do not fit the experts, or the outcomes hold no responses to replay them on.
    """
    dataset = material.dataset
    recording = Recording(dataset)
    given = () if isinstance(wanted, str) else tuple(wanted)
    if given:
        check_plans(given, dataset.pool.names)
    if not recording.has_responses:
        if given:
            raise PlanError("plans are replayed on recorded responses, and the outcomes hold none")
        return _without(policy, 0, "the outcomes hold no responses", notify)
    trials = Trials(recording, material.scores, material.folds)
    options = [trials.of(plan) for plan in given or trials.enumerate()]
    chosen, by_fold = _chosen(options, material, given)
    if not chosen:
        return _without(policy, len(options), "none has a certain gain over the experts' front", notify)
    notify(f"{len(options)} plans tried, {len(chosen)} chosen: fitting with them")
    outcomes = {one.plan: one for one in options}
    joint = _Joint.of(material, [outcomes[plan] for plan in chosen], trials, fit)
    eligible = _eligible(material, chosen, by_fold)
    gain, error = _gain(material, joint, eligible)
    if not given and gain - PROOF_Z * error <= 0:
        why = f"out of fold they gain {100 * gain:+.2f} ± {100 * error:.2f} points"
        return _without(policy, len(options), why, notify)
    best = dataset.pool.column(policy.training["best_single"])
    preferences = choose_preference(
        joint.scores,
        joint.expected,
        joint.outcomes,
        best=best,
        experts=len(dataset.pool),
        eligible=eligible,
        certainty=CERTAINTY_Z,
    )
    facts = {
        "tried": len(options),
        "kept": len(chosen),
        "gain": gain,
        "standard_error": error,
        "plans": {plan.name: outcomes[plan].outcome.figures() for plan in chosen},
    }
    return _joined(policy, material, joint, [trials.model(plan) for plan in chosen], preferences, facts)


@dataclass(frozen=True)
class _Joint:
    """Experts and plans fitted together."""

    plans: tuple[Plan, ...]
    calls: tuple[Calls, ...]
    fitted: Fitted
    outcomes: Extended
    expected: FloatArray | None  # [n, candidates] US$
    accepted: FloatArray  # [n, plans]

    @property
    def scores(self) -> FloatArray:
        """Calibrated, out of fold, [n, candidates]."""
        return self.fitted[2]

    @classmethod
    def of(cls, material: Material, tried: Sequence[Tried], trials: Trials, fit: Fit) -> "_Joint":
        dataset = material.dataset
        quality = np.column_stack([dataset.quality, *(one.outcome.quality for one in tried)])
        costs = dataset.costs_usd
        if costs is not None:
            spent = [one.outcome.cost_usd for one in tried]
            costs = np.column_stack([costs, *(cost for cost in spent if cost is not None)])
        accepted = np.column_stack([one.outcome.accepted for one in tried])
        plans = tuple(one.plan for one in tried)
        calls = tuple(trials.calls(plan) for plan in plans)
        expected = material.expected
        if expected is not None:
            rates = _rates_apart(material, accepted)
            composed = composed_costs(plans, calls, rates, expected, dataset.pool.names)
            expected = np.hstack([expected, composed])
        fitted = fit(TrainingSet(material.queries, quality, costs, dataset.tasks))
        return cls(plans, calls, fitted, Extended(quality, costs), expected, accepted)


def _chosen(
    options: Sequence[Tried], material: Material, given: tuple[Plan, ...]
) -> tuple[tuple[Plan, ...], dict[int, tuple[Plan, ...]]]:
    """The plans to keep, and for each fold those that the other folds choose.

    Kept are the plans that any choice holds, those of most choices first: which of several plans of equal
    worth a choice takes is chance, and the scores choose among them for each query.
    """
    folds = [int(fold) for fold in np.unique(material.folds)]
    if given:
        return given, dict.fromkeys(folds, given)
    quality, costs = material.dataset.quality, material.dataset.costs_usd
    by_fold = {
        fold: tuple(choose(options, quality, costs, np.flatnonzero(material.folds != fold))) for fold in folds
    }
    votes = Counter(choose(options, quality, costs, np.arange(len(quality))))
    for plans in by_fold.values():
        votes.update(plans)
    return tuple(plan for plan, _ in votes.most_common(MOST_KEPT)), by_fold


def _eligible(material: Material, chosen: Sequence[Plan], by_fold: dict[int, tuple[Plan, ...]]) -> BoolArray:
    """Experts everywhere, a plan on the folds that did not take part in choosing it, [n, candidates]."""
    plans = np.stack([[plan in by_fold[int(fold)] for plan in chosen] for fold in material.folds])
    return np.hstack([np.ones(material.dataset.quality.shape, dtype=bool), plans])


def _rates_apart(material: Material, accepted: FloatArray) -> FloatArray:
    """Out-of-fold probabilities of acceptance, [n, plans]."""
    found = np.empty(accepted.shape)
    for fold in np.unique(material.folds):
        inside, outside = np.flatnonzero(material.folds != fold), np.flatnonzero(material.folds == fold)
        model = _rates(material.queries.take(inside), accepted[inside])
        found[outside] = model.score(material.queries.take(outside))
    return found


def _rates(queries: QueryBatch, accepted: FloatArray) -> LinearRouter:
    return LinearRouter(penalty=RATE_PENALTY).fit(TrainingSet(queries, accepted), seed=0)


def _gain(material: Material, joint: _Joint, eligible: BoolArray) -> tuple[float, float]:
    """Gain in quality over the policy without plans, and its standard error, by a bootstrap over queries.

    The mean of two gains: at cost weight 0, and of the area under the cost–quality curve over the range of
    the experts' costs (AIQ). Where costs are unknown, the first alone.
    """
    rows, experts = joint.outcomes.complete(), len(material.dataset.pool)
    quality, paid, expected = joint.outcomes.quality[rows], joint.outcomes.costs_usd, joint.expected
    known = paid is not None and expected is not None and bool(np.isfinite(paid[rows]).all())
    spent = paid[rows] if paid is not None and known else np.zeros(quality.shape)
    alone = spent[:, :experts].mean(axis=0)
    weights = COST_WEIGHTS if alone.max() > alone.min() else (0.0,)
    curves = []
    for scores, allowed in ((material.scores, None), (joint.scores, eligible[rows])):
        costs = None if expected is None or not known else expected[rows][:, : scores.shape[1]]
        chosen = [
            decide(
                scores[rows],
                costs,
                preferences=Preferences(cost_weight=weight),
                eligible=allowed,
                experts=experts,
            ).best
            for weight in weights
        ]
        each = np.arange(len(rows))
        curves.append([np.stack([table[each, at] for at in chosen], axis=1) for table in (quality, spent)])

    def worth(shares: FloatArray) -> FloatArray:
        """Gain of each resample, [resamples], from shares [resamples, n] that sum to 1."""
        (before, before_cost), (after, after_cost) = ([shares @ table for table in pair] for pair in curves)
        top: FloatArray = after[:, 0] - before[:, 0]
        if len(weights) == 1:
            return top
        areas = [
            area(ours_cost, ours, alone.min(), alone.max())
            - area(theirs_cost, theirs, alone.min(), alone.max())
            for ours_cost, ours, theirs_cost, theirs in zip(
                after_cost, after, before_cost, before, strict=True
            )
        ]
        both: FloatArray = (top + np.array(areas)) / 2
        return both

    n = len(rows)
    rng = np.random.default_rng(0)
    drawn = worth(rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES) / n)
    return float(worth(np.full((1, n), 1 / n))[0]), float(drawn.std())


def _joined(
    policy: Policy,
    material: Material,
    joint: _Joint,
    models: Sequence[Any],
    preferences: PreferenceChoice,
    facts: dict[str, Any],
) -> Policy:
    method, calibration, _ = joint.fitted
    means = np.append(policy.guard.means, global_means(joint.outcomes.quality)[len(policy.pool) :])
    metrics = dict(policy.training["metrics"])
    metrics["out_of_fold"] = {
        "best_quality": preferences.best_quality.to_json(),
        "default": preferences.default.to_json(),
        "equal_quality": preferences.equal_quality and preferences.equal_quality.to_json(),
    }
    metrics["plans"] = facts
    equal = preferences.equal_quality
    latency_s = material.dataset.measured.get("latency_s")
    embeddings = material.queries.embeddings
    return replace(
        policy,
        method=method,
        calibration=calibration,
        guard=replace(policy.guard, means=means),
        latencies=None if latency_s is None else Regression.fit(embeddings, 1000 * latency_s),
        plans=PlanSet(
            joint.plans,
            tuple(models),
            _rates(material.queries, joint.accepted),
            np.nanmean(joint.accepted, axis=0),
            joint.calls,
            policy.pool.names,
        ),
        preferences=Preferences(cost_weight=preferences.default.cost_weight),
        preferences_without_plans=policy.preferences,
        training={
            **policy.training,
            "metrics": metrics,
            "equal_quality_cost_weight": equal and equal.cost_weight,
        },
    )


def _without(policy: Policy, tried: int, why: str, notify: Callable[[str], None]) -> Policy:
    notify(f"no plans: {why} ({tried} tried)")
    metrics = {**policy.training["metrics"], "plans": {"tried": tried, "kept": 0, "why": why}}
    return replace(policy, training={**policy.training, "metrics": metrics})
