"""A policy with one expert more, from 50 to 200 probes, without retraining what is there.

A method that knows better how to take an expert in says so with `with_expert`; for all others
`router.methods.added` stands beside the fitted method.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from router.core import FloatArray, QueryBatch
from router.data.dataset import Dataset
from router.errors import OutcomesError, PoolError
from router.experts import CandidatePool
from router.methods.added import AddedRouter
from router.methods.contract import RoutingMethod
from router.methods.shrink import PRIOR_STRENGTH
from router.policy import Policy

LEAST_PROBES = 20


def add_expert(policy: Policy, probes: Dataset, embeddings: FloatArray, *, name: str) -> Policy:
    """The policy with `name` as the last expert of its pool; unsaved.

    Outcomes of the policy's own experts on the same probes, where `probes` holds them, make the
    estimate better: they tell how hard the drawn probes were. The default preference stays.

    Args:
        embeddings: [n, dimension] of the probes, made with the policy's encoder.

    Raises:
        PoolError: the policy has this expert already, or the probes hold no outcome of it.
        OutcomesError: fewer than 20 probes were answered by it.
    """
    if name in policy.pool:
        raise PoolError(f"{name!r} is in the policy's pool already ({', '.join(policy.pool.names)})")
    column = probes.pool.column(name)
    rows = np.flatnonzero(np.isfinite(probes.quality[:, column]))
    if len(rows) < LEAST_PROBES:
        raise OutcomesError(
            f"adding an expert needs at least {LEAST_PROBES} outcomes of it, found {len(rows)} of {name!r}"
        )
    asked, points = probes.take(rows), embeddings[rows]
    batch = QueryBatch(asked.texts, points)
    quality = asked.quality[:, column]
    method, mean = _grown(policy, batch, quality, _of_the_others(policy, asked))
    means = np.append(policy.guard.means, mean)
    names = (*policy.pool.names, name)
    return replace(
        policy,
        pool=CandidatePool([*policy.pool, probes.pool[name]]),
        method=method,
        costs=policy.costs.with_expert(
            probes.pool[name].price,
            asked.texts,
            points,
            **{
                measure: None if measure not in asked.measured else asked.measured[measure][:, column]
                for measure in ("prompt_tokens", "completion_tokens", "cost_usd")
            },
        ),
        guard=replace(policy.guard, means=means),
        static_ranking=tuple(names[at] for at in np.argsort(-means, kind="stable")),
        calibration=None if policy.calibration is None else policy.calibration.with_expert(),
        waits=None
        if policy.waits is None
        else policy.waits.with_column(
            points, None if "ttft_s" not in asked.measured else 1000 * asked.measured["ttft_s"][:, column]
        ),
        card="",
        training=_facts(policy, asked, quality, name=name, mean=mean, means=means),
        policy_id="unsaved",
    )


def _grown(
    policy: Policy, probes: QueryBatch, quality: FloatArray, others: FloatArray
) -> tuple[RoutingMethod, float]:
    """The method with the new expert, and what that expert reaches on average."""
    centre = policy.guard.references.astype(np.float64).mean(axis=0)
    own = getattr(policy.method, "with_expert", None)
    base = {"name": policy.method.name, "params": policy.method.params}
    beside = AddedRouter(base=base).learn(policy.method, probes, quality, others, policy.guard.means, centre)
    return (beside if own is None else own(probes, quality, others)), beside.mean


def _of_the_others(policy: Policy, probes: Dataset) -> FloatArray:
    """What the policy's own experts reached on the probes, [n, experts]; NaN where unknown."""
    found = np.full((len(probes), len(policy.pool)), np.nan)
    for at, name in enumerate(policy.pool.names):
        if name in probes.pool:
            found[:, at] = probes.quality[:, probes.pool.column(name)]
    return found


def _facts(
    policy: Policy, probes: Dataset, quality: FloatArray, *, name: str, mean: float, means: FloatArray
) -> dict[str, Any]:
    facts = dict(policy.training)
    told = dict(facts.get("metrics") or {})
    told["expert_means"] = {**told.get("expert_means", {}), name: mean}
    facts["metrics"] = told
    best = (*policy.pool.names, name)[int(means.argmax())]
    if best != facts.get("best_single", best):
        # Both hold a preference against the old best expert, and were never tried against this one.
        facts.pop("equal_quality_cost_weight", None)
        told.pop("out_of_fold", None)
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
