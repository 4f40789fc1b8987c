"""Add an expert to a policy from 50 to 200 probes, without retraining.

A method may bring its own way as `with_expert`; for all others `router.methods.added` is put beside the
fitted method.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from router.core import FloatArray, QueryBatch
from router.costs import Regression
from router.data.dataset import Dataset
from router.errors import OutcomesError, PoolError
from router.experts import CandidatePool
from router.methods.added import AddedRouter
from router.methods.contract import RoutingMethod
from router.methods.shrink import PRIOR_STRENGTH
from router.policy import Policy

LEAST_PROBES, LEAST_WITH_PRIOR = 20, 5
"""Outcomes of the new expert, and where its mean quality is expected beforehand."""


def add_expert(
    policy: Policy,
    probes: Dataset,
    embeddings: FloatArray,
    *,
    name: str,
    expected: tuple[float, float] | None = None,
) -> Policy:
    """The policy with `name` as the last expert of its pool; unsaved.

    Outcomes of the policy's own experts on the same probes, where `probes` holds them, improve the
    estimate: they show how hard the drawn probes were. The default preference stays.

    Args:
        policy: the policy to extend; it is not changed.
        probes: outcomes of the new expert, and optionally of the others.
        embeddings: [n, dimension] of the probes, made with the policy's encoder.
        name: the new expert.
        expected: its mean quality before any outcome, and the variance, where something is known.

    Raises:
        PoolError: the policy has this expert already, or the probes hold no outcome of it.
        OutcomesError: fewer than 20 probes were answered by it, or than 5 with an expectation.
    """
    if name in policy.pool:
        raise PoolError(f"{name!r} is in the policy's pool already ({', '.join(policy.pool.names)})")
    column = probes.pool.column(name)
    rows = np.flatnonzero(np.isfinite(probes.quality[:, column]))
    least = LEAST_PROBES if expected is None else LEAST_WITH_PRIOR
    if len(rows) < least:
        raise OutcomesError(
            f"adding an expert needs at least {least} outcomes of it, found {len(rows)} of {name!r}"
        )
    measured, points = probes.take(rows), embeddings[rows]
    batch = QueryBatch(measured.texts, points)
    quality = measured.quality[:, column]
    method, mean = _grown(policy, batch, quality, _of_the_others(policy, measured), expected)
    means = np.append(policy.means[: len(policy.pool)], mean)
    names = (*policy.pool.names, name)
    return replace(
        policy,
        pool=CandidatePool([*policy.pool, probes.pool[name]]),
        method=method,
        costs=policy.costs.with_expert(
            probes.pool[name].price,
            measured.texts,
            points,
            **{
                measure: None if measure not in measured.measured else measured.measured[measure][:, column]
                for measure in ("prompt_tokens", "completion_tokens", "cost_usd")
            },
        ),
        guard=replace(policy.guard, means=np.append(policy.guard.means, mean)),
        static_ranking=tuple(names[at] for at in np.argsort(-means, kind="stable")),
        calibration=None if policy.calibration is None else policy.calibration.with_expert(),
        waits=_times(policy.waits, points, measured, "ttft_s", column),
        latencies=_times(policy.latencies, points, measured, "latency_s", column),
        card="",
        training=_facts(policy, measured, quality, name=name, mean=mean, means=means),
        policy_id="unsaved",
    )


def _grown(
    policy: Policy,
    probes: QueryBatch,
    quality: FloatArray,
    others: FloatArray,
    expected: tuple[float, float] | None,
) -> tuple[RoutingMethod, float]:
    """The method with the new expert, and that expert's mean quality."""
    centre = policy.guard.references.astype(np.float64).mean(axis=0)
    own = getattr(policy.method, "with_expert", None)
    base = {"name": policy.method.name, "params": policy.method.params}
    beside = AddedRouter(base=base).learn(
        policy.method, probes, quality, others, policy.guard.means, centre, expected
    )
    return (beside if own is None else own(probes, quality, others)), beside.mean


def _of_the_others(policy: Policy, probes: Dataset) -> FloatArray:
    """Measured quality of the policy's experts on the probes, in the method's columns; NaN where unknown."""
    width = len(policy.guard.means)
    found = np.full((len(probes), width), np.nan)
    columns = list(range(width)) if policy.plans is None else policy.plans.columns(width)
    for column, name in zip(columns, policy.pool.names, strict=False):
        if name in probes.pool:
            found[:, column] = probes.quality[:, probes.pool.column(name)]
    return found


def _times(
    model: Regression | None, points: FloatArray, probes: Dataset, name: str, column: int
) -> Regression | None:
    """A model of times with the new expert's."""
    if model is None:
        return None
    return model.with_column(
        points, None if name not in probes.measured else 1000 * probes.measured[name][:, column]
    )


def _facts(
    policy: Policy, probes: Dataset, quality: FloatArray, *, name: str, mean: float, means: FloatArray
) -> dict[str, Any]:
    facts = dict(policy.training)
    metrics = dict(facts.get("metrics") or {})
    metrics["expert_means"] = {**metrics.get("expert_means", {}), name: mean}
    facts["metrics"] = metrics
    best = (*policy.pool.names, name)[int(means.argmax())]
    if best != facts.get("best_single", best):
        # Both compare with the old best expert, and were never compared with this one.
        facts.pop("equal_quality_cost_weight", None)
        metrics.pop("out_of_fold", None)
    facts["best_single"] = best
    if facts.get("task_means"):
        tasks = np.array(probes.tasks or ("",) * len(probes))
        facts["task_means"] = {
            task: [*row, _shrunk(quality[tasks == task], mean)] for task, row in facts["task_means"].items()
        }
    entry = {"expert": name, "n_probes": len(probes), "mean": mean, "data_sha256": probes.sha256}
    facts["added"] = [*facts.get("added", ()), {**entry, "to_policy": policy.policy_id}]
    return facts


def _shrunk(quality: FloatArray, mean: float) -> float:
    return round(float((quality.sum() + PRIOR_STRENGTH * mean) / (len(quality) + PRIOR_STRENGTH)), 6)
