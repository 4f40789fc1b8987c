"""Choose a policy's encoder: the first one, unless another decides better out of fold.

"Better" is the area under quality over cost (AIQ) of the decisions on queries that the scores did not see, by
more than the standard error of the paired difference. Where no cost is known it is their quality; of two
experts the stronger then costs 1 and the other nothing. All on training data, so that a test set only judges.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import numpy as np

from router.core import FloatArray, IntArray, Preferences
from router.data.dataset import Dataset
from router.decide import decide
from router.encoders import EncoderSpec
from router.methods.hull import area
from router.methods.shrunk import Target
from router.plans.plan import Plan
from router.policy import Policy
from router.training.planned import with_plans
from router.training.train import train_experts

TRIED_WEIGHTS = (0.0, *np.geomspace(0.003, 3.0, 25).tolist())
"""Cost weights at which decisions are compared."""
RESAMPLES = 200
"""Bootstrap samples of the queries, for the standard error (Efron 1979)."""


@dataclass(frozen=True)
class Encoded:
    """An encoder and its embeddings of a data set's queries."""

    spec: EncoderSpec
    embeddings: FloatArray  # [n, dimension]

    def take(self, rows: IntArray) -> Self:
        """A copy with only these rows, in this order."""
        return replace(self, embeddings=self.embeddings[rows])


def train_choosing(
    dataset: Dataset,
    encoded: Sequence[Encoded],
    *,
    method: str,
    params: Mapping[str, Any] | None = None,
    seed: int = 0,
    plans: Sequence[Plan] | Literal["auto", "none"] = "none",
    target: Target | None = None,
    notify: Callable[[str], None] = lambda line: None,
) -> Policy:
    """Train with the best of some encoders; the policy's training facts have the comparison.

    Args:
        dataset: outcomes.
        encoded: the encoders and their embeddings; the first one is taken unless another is better.
        method: a registered name.
        params: the method's constructor arguments.
        seed: of folds, method and resampling.
        plans: as of `train`; they have no part in the choice.
        target: what is expected by priors; made with the only encoder.
        notify: called with a line for each step, for a command line.

    Raises:
        OutcomesError, MethodError, PlanError: as `train`.
    """
    trained = [
        train_experts(
            dataset,
            one.embeddings,
            one.spec,
            method=method,
            params=params,
            seed=seed,
            target=target,
            notify=notify,
        )
        for one in encoded
    ]
    policy, material, fit = trained[0]
    if len(trained) > 1:
        scores = [made.scores for _, made, _ in trained]
        index, facts = choose(scores, dataset, [one.spec.id for one in encoded], seed=seed)
        policy, material, fit = trained[index]
        policy = replace(policy, training={**policy.training, "encoders": facts})
        notify(f"encoder {policy.encoder.id}; {facts['measure']} out of fold: {_listed(facts)}")
    return policy if plans == "none" else with_plans(policy, material, plans, fit=fit, notify=notify)


def choose(
    scores: Sequence[FloatArray], dataset: Dataset, names: Sequence[str], *, seed: int
) -> tuple[int, dict[str, Any]]:
    """The best of some scores of one data set, and the figures of the choice.

    Args:
        scores: [n, experts] each, out of fold.
        dataset: the measured outcomes.
        names: of the scores' encoders.
        seed: of the resampling.

    Returns:
        (index, `{"measure", "tried": [{"id", "value", "difference", "standard_error"}]}`), where differences
        are to the first.
    """
    rows, costs = _priced(dataset)
    if not len(rows):
        return 0, {"measure": "none", "tried": [{"id": name} for name in names]}
    quality = dataset.quality[rows]
    n, rng = len(rows), np.random.default_rng(seed)
    # The first sample has each query once: the figures themselves.
    samples = np.vstack([np.ones(n), rng.multinomial(n, np.full(n, 1 / n), RESAMPLES)]) / n
    values = np.array([_values(one[rows], quality, costs, samples) for one in scores])
    apart = values - values[0]
    errors = apart[:, 1:].std(axis=1)
    better = np.where(apart[:, 0] > errors, apart[:, 0], 0.0)
    tried = [
        {"id": name, "value": float(value), "difference": float(difference), "standard_error": float(error)}
        for name, value, difference, error in zip(names, values[:, 0], apart[:, 0], errors, strict=True)
    ]
    measure = "quality" if costs is None else "aiq"
    return int(better.argmax()), {"measure": measure, "tried": tried}


def _priced(dataset: Dataset) -> tuple[IntArray, FloatArray | None]:
    """Complete rows, and their costs [rows, experts] where every expert's is known, or there are only two."""
    rows, costs = dataset.complete(), dataset.costs_usd
    if costs is not None:
        priced = rows[np.isfinite(costs[rows]).all(axis=1)]
        if len(priced) and costs[priced].mean() > 0:
            return priced, costs[priced]
    if len(dataset.pool) == 2 and len(rows):  # a call of the stronger one costs 1, as in RouteLLM's APGR
        stronger = int(dataset.quality[rows].mean(axis=0).argmax())
        return rows, np.tile(np.eye(2)[stronger], (len(rows), 1))
    return rows, None


def _values(
    scores: FloatArray, quality: FloatArray, costs: FloatArray | None, samples: FloatArray
) -> FloatArray:
    """The worth of decisions in each sample of the queries, [samples]."""
    each = np.arange(len(scores))
    if costs is None:
        value: FloatArray = samples @ quality[each, scores.argmax(axis=1)]
        return value
    alone = costs.mean(axis=0)
    expected = np.broadcast_to(alone, scores.shape)
    picked = [
        decide(scores, expected, preferences=Preferences(cost_weight=weight)).best for weight in TRIED_WEIGHTS
    ]
    reached = samples @ np.stack([quality[each, chosen] for chosen in picked], axis=1)
    paid = samples @ np.stack([costs[each, chosen] for chosen in picked], axis=1)
    low, high = float(alone.min()), float(alone.max())
    return np.array([area(x, y, low, high) for x, y in zip(paid, reached, strict=True)])


def _listed(facts: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{one['id']} {one['value']:.4f} ({one['difference']:+.4f} ± {one['standard_error']:.4f})"
        for one in facts["tried"]
        if "value" in one
    )
