"""Evaluate a policy on outcomes that it did not train on, through the code that serves.

Every choice goes through `Policy.score`, its expected costs and `decide`; quality and cost are those that
were measured. The baselines are random, every expert alone, best single, zero router and oracle.
"""

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np

from router.core import BoolArray, FloatArray, IntArray, Preferences, QueryBatch, RouteRequest
from router.data.dataset import Dataset
from router.decide import decide
from router.errors import OutcomesError
from router.evaluation import metrics
from router.evaluation.plan_outcomes import PlanOutcomes
from router.methods.hull import area
from router.plans.composition import composed_costs
from router.policy import Policy
from router.training.preference import COST_WEIGHTS


@dataclass(frozen=True)
class EvaluatedPolicy:
    """A policy on a data set: its predictions and the measured outcomes."""

    policy: Policy
    dataset: Dataset  # complete rows only, of known cost where any is; the policy's pool in its order
    scores: FloatArray  # [n, candidates]
    expected: FloatArray | None  # [n, candidates] US$
    unfamiliar: BoolArray  # [n]
    dropped: int
    """Queries left out because an expert's outcome or cost is missing."""
    plans: PlanOutcomes | None = None
    """`None` where the policy has none, or the outcomes hold no responses to replay them on."""

    @property
    def names(self) -> tuple[str, ...]:
        """The candidates in column order: experts, then plans."""
        return self.policy.candidates if self.plans is not None else self.policy.pool.names

    @cached_property
    def quality(self) -> FloatArray:
        """Measured quality, [n, candidates]."""
        own = self.dataset.quality
        return own if self.plans is None else np.hstack([own, self.plans.quality])

    @cached_property
    def paid(self) -> FloatArray | None:
        """Measured cost, [n, candidates]; `None` where no query has every expert's."""
        costs = self.dataset.costs_usd
        if costs is None or not np.isfinite(costs).all():
            return None
        if self.plans is None or self.plans.costs_usd is None:
            return costs
        return np.hstack([costs, self.plans.costs_usd])

    @property
    def of_experts(self) -> "EvaluatedPolicy":
        """The same without the plans: the baselines are over experts only."""
        if self.plans is None:
            return self
        width = len(self.policy.pool)
        expected = None if self.expected is None else self.expected[:, :width]
        return replace(self, scores=self.scores[:, :width], expected=expected, plans=None)

    @property
    def best_single(self) -> int:
        """Column of the expert that was best on the training data, as the policy records it."""
        name = self.policy.training.get("best_single", self.policy.static_ranking[0])
        return self.policy.pool.column(name)

    def choices(self, preferences: Preferences) -> IntArray:
        """The chosen column of each query, [n]."""
        experts = len(self.policy.pool)
        return decide(self.scores, self.expected, preferences=preferences, experts=experts).best

    def outcome(self, chosen: IntArray) -> tuple[FloatArray, FloatArray | None]:
        """Measured quality and cost of the chosen experts, [n] each."""
        each = np.arange(len(chosen))
        return self.quality[each, chosen], None if self.paid is None else self.paid[each, chosen]


def judge(policy: Policy, dataset: Dataset, embeddings: FloatArray) -> EvaluatedPolicy:
    """Score a data set with a policy.

    Queries that lack an expert's outcome are left out; so are those that lack an expert's cost where
    others have all costs. Where none has all, cost counts as unknown. Plans are replayed on responses;
    without any, the policy is judged without its plans.

    Raises:
        PoolError: the outcomes lack an expert of the policy.
        OutcomesError: no query has an outcome of every expert.
    """
    ordered = dataset.only(policy.pool.names)
    rows = ordered.complete()
    if not len(rows):
        raise OutcomesError("no query has an outcome of every expert of the policy: nothing can be compared")
    if ordered.costs_usd is not None:
        priced = rows[np.isfinite(ordered.costs_usd[rows]).all(axis=1)]
        rows = priced if len(priced) else rows
    kept = ordered.take(rows)
    batch = QueryBatch(kept.texts, embeddings[rows])
    scores = policy.score(batch)
    plans = None
    if policy.plans is not None:
        plans = PlanOutcomes.of(policy.plans, kept, scores.quality)
    if plans is not None:
        whole = np.flatnonzero(np.isfinite(plans.quality).all(axis=1))
        if not len(whole):
            plans = None
        elif len(whole) < len(rows):
            return judge(policy, dataset.take(rows[whole]), embeddings[rows[whole]])
    expected = policy.expected_costs(batch, [RouteRequest(text) for text in kept.texts])
    quality = scores.quality
    if plans is None:
        quality = quality[:, : len(policy.pool)]
    elif expected is not None and scores.p_accept is not None and policy.plans is not None:
        planned = policy.plans
        spent = composed_costs(planned.plans, planned.calls, scores.p_accept, expected, policy.pool.names)
        expected = np.hstack([expected, spent])
    return EvaluatedPolicy(
        policy, kept, quality, expected, scores.unfamiliar, len(dataset) - len(rows), plans
    )


def report(judged: EvaluatedPolicy) -> dict[str, Any]:
    """The contents of `report.json`."""
    quality, paid, best = judged.quality, judged.paid, judged.best_single
    default = judged.choices(judged.policy.preferences)
    picked, cost = judged.outcome(default)
    alone = quality[:, best]
    top, _ = judged.outcome(judged.choices(Preferences(cost_weight=0.0)))
    points = curve(judged, judged.scores)
    names, alone_only = judged.names, judged.of_experts
    accepted: dict[str, dict[str, float | None]] = {}
    if judged.plans is not None:
        each = zip(judged.plans.plans, judged.plans.replayed, strict=True)
        accepted = {plan.name: {"plan": True, **outcome.figures()} for plan, outcome in each}
    return {
        "n_queries": len(quality),
        "n_dropped": judged.dropped,
        "policy_id": judged.policy.policy_id,
        "method": judged.policy.method.name,
        "experts": {
            name: {
                "quality": _mean(quality[:, column]),
                "cost_usd": _mean(_column(paid, column)),
                **accepted.get(name, {}),
            }
            for column, name in enumerate(names)
        },
        "best_single": {
            "name": names[best],
            "quality": _mean(alone),
            "cost_usd": _mean(_column(paid, best)),
        },
        "random": {
            "quality": _mean(alone_only.quality.mean(axis=1)),
            "cost_usd": _mean(None if alone_only.paid is None else alone_only.paid.mean(axis=1)),
        },
        "oracle": _oracle(alone_only.quality, alone_only.paid),
        "policy": {
            "quality": _mean(picked),
            "cost_usd": _mean(cost),
            "preferences": _preferences_set(judged.policy.preferences),
        },
        "curve": points,
        **_areas(judged, points),
        "quality_gain": float(top.mean() / alone.mean() - 1) if alone.mean() else None,
        "quality_gain_points": float(top.mean() - alone.mean()),
        "quality_gain_ci95": metrics.interval(lambda w: (w @ top) / (w @ alone) - 1, len(alone))
        if alone.mean()
        else None,
        "cost_saved_at_equal_quality": _saved(judged),
        **_two_experts(judged),
        "calibration": {
            name: metrics.calibration_error(judged.scores[:, column], quality[:, column])
            for column, name in enumerate(names)
        },
        "reliability": {
            name: [
                {"predicted": predicted, "observed": observed, "n": n}
                for predicted, observed, n in metrics.reliability(
                    judged.scores[:, column], quality[:, column]
                )
            ]
            for column, name in enumerate(names)
        },
        "winners": _winners(judged, default),
        "traffic": {name: float((default == column).mean()) for column, name in enumerate(names)},
        "unfamiliar": float(judged.unfamiliar.mean()),
        "told_the_task": _task_known(judged),
        "paper": _paper(judged, default),
    }


def curve(judged: EvaluatedPolicy, scores: FloatArray) -> list[dict[str, Any]]:
    """Measured quality and cost at every cost weight, for scores [n, candidates] of any origin."""
    points = []
    for weight in COST_WEIGHTS if judged.expected is not None else (0.0,):
        ranked = decide(
            scores,
            judged.expected,
            preferences=Preferences(cost_weight=weight),
            experts=len(judged.policy.pool),
        )
        picked, cost = judged.outcome(ranked.best)
        points.append({"cost_weight": weight, "quality": _mean(picked), "cost_usd": _mean(cost)})
    return points


def _areas(judged: EvaluatedPolicy, points: list[dict[str, Any]]) -> dict[str, float | None]:
    if judged.paid is None or judged.expected is None:
        return {"aiq": None, "zero_router_aiq": None}
    experts = len(judged.policy.pool)
    single_cost, single_quality = judged.paid.mean(axis=0)[:experts], judged.quality.mean(axis=0)[:experts]
    low, high = float(single_cost.min()), float(single_cost.max())
    if low == high:  # no range of costs to take a mean over
        return {"aiq": None, "zero_router_aiq": None}
    ours = np.array([[point["cost_usd"], point["quality"]] for point in points])
    return {
        "aiq": area(ours[:, 0], ours[:, 1], low, high),
        "zero_router_aiq": area(single_cost, single_quality, low, high),
    }


def _saved(judged: EvaluatedPolicy) -> dict[str, Any]:
    """The saving at the preference that training chose, never at one chosen on what is reported.

    Where training found none that is safe, the choice is the best single expert itself.
    """
    facts = judged.policy.training
    weight = facts.get("equal_quality_cost_weight")
    free = judged.paid is None or not judged.paid[:, judged.best_single].any()
    if judged.paid is None or free or "equal_quality_cost_weight" not in facts:
        return {"cost_weight": weight, "saved": None, "quality": None, "ci95": None}
    alone_always = np.full(len(judged.quality), judged.best_single)
    chosen = alone_always if weight is None else judged.choices(Preferences(cost_weight=weight))
    picked, cost = judged.outcome(chosen)
    alone = judged.paid[:, judged.best_single]
    assert cost is not None  # noqa: S101 - paid is there
    return {
        "cost_weight": weight,
        "saved": float(1 - cost.mean() / alone.mean()),
        "quality": _mean(picked),
        "quality_against_best_single": float(picked.mean() - judged.quality[:, judged.best_single].mean()),
        "quality_ci95": metrics.interval(
            lambda w: w @ (picked - judged.quality[:, judged.best_single]), len(picked)
        ),
        "ci95": metrics.interval(lambda w: 1 - (w @ cost) / (w @ alone), len(alone)),
    }


def _two_experts(judged: EvaluatedPolicy) -> dict[str, float | None]:
    """RouteLLM's figures, for pools of two."""
    if len(judged.policy.pool) != 2:
        return {"apgr": None, "cpt50": None, "cpt80": None}
    strong = judged.best_single
    weak = 1 - strong
    share, recovered = metrics.gap_recovered(
        judged.scores[:, strong] - judged.scores[:, weak], judged.quality[:, weak], judged.quality[:, strong]
    )
    return {
        "apgr": metrics.apgr(share, recovered),
        "cpt50": metrics.call_share(share, recovered, 0.5),
        "cpt80": metrics.call_share(share, recovered, 0.8),
    }


def _oracle(quality: FloatArray, paid: FloatArray | None) -> dict[str, float | None]:
    """The cheapest of each query's best experts."""
    best = quality.max(axis=1, keepdims=True)
    if paid is None:
        return {"quality": _mean(best), "cost_usd": None}
    cheapest = np.where(quality >= best, paid, np.inf).argmin(axis=1)
    each = np.arange(len(quality))
    return {"quality": _mean(best), "cost_usd": _mean(paid[each, cheapest])}


def _winners(judged: EvaluatedPolicy, chosen: IntArray) -> dict[str, Any]:
    """Task → its queries, the share on which each expert is among the best, and the share sent to it."""
    names = judged.names
    tasks = np.array(judged.dataset.tasks or ("all",) * len(chosen))
    best = judged.quality >= judged.quality.max(axis=1, keepdims=True)
    return {
        str(task): {
            "n": int(inside.sum()),
            "experts": {name: float(best[inside, column].mean()) for column, name in enumerate(names)},
            "sent": {name: float((chosen[inside] == column).mean()) for column, name in enumerate(names)},
        }
        for task in np.unique(tasks)
        for inside in [tasks == task]
    }


def _task_known(judged: EvaluatedPolicy) -> dict[str, Any] | None:
    """A router that knows each query's true task, and the experts' means on that task in training.

    The best that task labels alone can give; a useful policy is better.
    """
    means, tasks = judged.policy.training.get("task_means"), judged.dataset.tasks
    if tasks is None or not means:
        return None
    experts = judged.of_experts
    fallback = judged.policy.means[: len(judged.policy.pool)]
    scores = np.array([means.get(task, fallback) for task in tasks])
    return {**_at_best(experts, scores), "aiq": _areas(experts, curve(experts, scores))["aiq"]}


def _at_best(judged: EvaluatedPolicy, scores: FloatArray) -> dict[str, float | None]:
    chosen = decide(scores, judged.expected, preferences=Preferences(cost_weight=0.0)).best
    picked, cost = judged.outcome(chosen)
    return {"quality": _mean(picked), "cost_usd": _mean(cost)}


def _paper(judged: EvaluatedPolicy, chosen: IntArray) -> dict[str, dict[str, float | None]]:
    """The paper's further figures, where the outcomes hold them: latencies, NLL, tokens, throughput."""
    each = np.arange(len(chosen))
    found: dict[str, dict[str, float | None]] = {}
    measured = judged.dataset.measured if judged.plans is None else judged.plans.measured(judged.dataset)
    latency, tokens = measured.get("latency_s"), measured.get("completion_tokens")
    for name in ("latency_s", "ttft_s", "nll", "completion_tokens"):
        if name in measured:
            values = measured[name]
            found[name] = {
                "policy": _mean(values[each, chosen]),
                "best_single": _mean(values[:, judged.best_single]),
                "random": _mean(values[:, : len(judged.policy.pool)].mean(axis=1)),
            }
    if latency is not None and tokens is not None:
        found["tokens_per_s"] = {
            "policy": float(np.nansum(tokens[each, chosen]) / np.nansum(latency[each, chosen])),
            "best_single": float(
                np.nansum(tokens[:, judged.best_single]) / np.nansum(latency[:, judged.best_single])
            ),
            "random": float(
                np.nansum(tokens[:, : len(judged.policy.pool)])
                / np.nansum(latency[:, : len(judged.policy.pool)])
            ),
        }
    return found


def _preferences_set(preferences: Preferences) -> dict[str, float]:
    names = (field.name for field in fields(Preferences))
    return {name: value for name in names if (value := getattr(preferences, name)) is not None}


def _column(values: FloatArray | None, column: int) -> FloatArray | None:
    return None if values is None else values[:, column]


def _mean(values: FloatArray | None) -> float | None:
    if values is None or not np.isfinite(values).any():
        return None
    return float(np.nanmean(values))
