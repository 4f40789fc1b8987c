"""From outcomes to a policy: fit, calibrate, choose the preference, guard; all on training data.

Calibration and preferences are chosen on out-of-fold scores: each query is scored by a method that
never saw it. The method of the policy is then fitted on all data.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np

from router.core import FloatArray, Preferences, QueryBatch, TrainingSet
from router.costs import CostModel, Regression
from router.data.dataset import Dataset, same_query
from router.encoders import EncoderSpec
from router.errors import OutcomesError
from router.guard import NoveltyGuard
from router.methods.clusters import MOST_TASKS
from router.methods.registry import make
from router.methods.shrink import PRIOR_STRENGTH, global_means
from router.methods.shrunk import ShrunkRouter, Target
from router.plans.plan import Plan
from router.policy import Policy
from router.training.fitting import FOLDS, fit_calibrated, fold_of
from router.training.planned import Fit, Material, with_plans
from router.training.preference import LEAST_QUERIES, choose_preference

LEAST_OF_EXPERT = 5
"""Different queries with an outcome of an expert that training needs: fewer may all be in one fold."""


def train(
    dataset: Dataset,
    embeddings: FloatArray,
    encoder: EncoderSpec,
    *,
    method: str,
    params: Mapping[str, Any] | None = None,
    seed: int = 0,
    plans: Sequence[Plan] | Literal["auto", "none"] = "none",
    notify: Callable[[str], None] = lambda line: None,
) -> Policy:
    """Train a policy on all queries of `dataset`.

    Args:
        dataset: outcomes.
        embeddings: [n, dimension] of the data set's queries, made with `encoder`.
        encoder: recorded in the policy.
        method: a registered name.
        params: the method's constructor arguments.
        seed: of folds and method.
        plans: `auto` keeps those whose gain on these outcomes is certain enough, `none` has none; given
            ones are all kept.
        notify: called with a line for each step, for a command line.

    Raises:
        OutcomesError: fewer than 20 different queries, of all or of an expert, or fewer than two experts.
        MethodError: unknown method or parameters.
        PlanError: given plans do not fit the experts, or the outcomes hold no responses to replay them on.
    """
    policy, material, fit = train_experts(
        dataset, embeddings, encoder, method=method, params=params, seed=seed, notify=notify
    )
    if plans == "none":
        return policy
    return with_plans(policy, material, plans, fit=fit, notify=notify)


def train_experts(
    dataset: Dataset,
    embeddings: FloatArray,
    encoder: EncoderSpec,
    *,
    method: str,
    params: Mapping[str, Any] | None = None,
    seed: int = 0,
    target: Target | None = None,
    notify: Callable[[str], None] = lambda line: None,
) -> tuple[Policy, Material, Fit]:
    """A policy without plans, and what `with_plans` needs to add some; arguments and errors as `train`.

    `target` is what is expected of the experts by priors; its folds are those of `fold_of` with this seed.
    """
    check_trainable(dataset, method=method, params=params)
    batch = QueryBatch(dataset.texts, embeddings)
    training = TrainingSet(batch, dataset.quality, dataset.costs_usd, dataset.tasks)

    folds = fold_of(dataset.texts, seed=seed)
    notify(f"fitting {method} on {len(dataset)} queries, and scoring them out of fold ({FOLDS} folds)")
    fit = partial(fit_calibrated, folds=folds, method=method, params=params, seed=seed, target=target)
    fitted, calibration, scores = fit(training)
    costs = CostModel.fit(
        dataset.pool,
        dataset.texts,
        embeddings,
        prompt_tokens=dataset.measured.get("prompt_tokens"),
        completion_tokens=dataset.measured.get("completion_tokens"),
        costs_usd=dataset.measured.get("cost_usd"),
    )
    waits_s = dataset.measured.get("ttft_s")
    means = global_means(dataset.quality)
    guard = NoveltyGuard.fit(embeddings, means, seed=seed)
    expected = costs.predict(embeddings, dataset.texts)
    best = int(np.argmax(means))
    chosen = choose_preference(scores, expected, dataset, best=best)
    facts = {
        "data_sha256": dataset.sha256,
        "seed": seed,
        "metrics": {
            "expert_means": {name: float(means[column]) for column, name in enumerate(dataset.pool.names)},
            "out_of_fold": {
                "best_quality": chosen.best_quality.to_json(),
                "default": chosen.default.to_json(),
                "equal_quality": chosen.equal_quality and chosen.equal_quality.to_json(),
            },
        },
        "n_queries": len(dataset),
        "best_single": dataset.pool.names[best],
        "equal_quality_cost_weight": chosen.equal_quality and chosen.equal_quality.cost_weight,
        "task_means": _task_means(dataset, means),
    }
    if isinstance(fitted, ShrunkRouter):
        facts["weight_of_prior"] = round(float(fitted.weight_[0]), 4)
        notify(f"weight of the prior: {facts['weight_of_prior']:.2f}")
    policy = Policy(
        pool=dataset.pool,
        encoder=encoder,
        method=fitted,
        costs=costs,
        guard=guard,
        static_ranking=tuple(dataset.pool.names[column] for column in np.argsort(-means, kind="stable")),
        preferences=Preferences(cost_weight=chosen.default.cost_weight),
        calibration=calibration,
        waits=None if waits_s is None else Regression.fit(embeddings, 1000 * waits_s),
        training=facts,
    )
    material = Material(dataset, batch, folds, scores, expected, chosen)
    return policy, material, fit


def check_trainable(dataset: Dataset, *, method: str, params: Mapping[str, Any] | None = None) -> None:
    """Check the data and the method, before the expensive encoding.

    Raises:
        OutcomesError, MethodError: as `train`.
    """
    make(method, params)
    if len(dataset.pool) < 2 and method != "fixed":
        raise OutcomesError(
            f"routing needs at least two experts, the outcomes hold only {dataset.pool.names[0]!r}"
        )
    normal = [same_query(text) for text in dataset.texts]
    _check_count(normal, LEAST_QUERIES, "")
    for column, name in enumerate(dataset.pool.names):
        seen = np.flatnonzero(np.isfinite(dataset.quality[:, column]))
        _check_count([normal[row] for row in seen], LEAST_OF_EXPERT, f" of expert {name!r}")


def _check_count(queries: Sequence[str], least: int, suffix: str) -> None:
    if (found := len(set(queries))) < least:
        hint = f" in {len(queries)}: queries that differ only in space and case count once"
        raise OutcomesError(
            f"training needs outcomes{suffix} on at least {least} different queries, found {found}"
            + hint * (found < len(queries))
        )


def _task_means(dataset: Dataset, means: FloatArray) -> dict[str, list[float]] | None:
    """Task → each expert's mean, shrunk to the global ones; for reports, never read for decisions."""
    if dataset.tasks is None or len(set(dataset.tasks)) > MOST_TASKS:
        return None
    tasks = np.array(dataset.tasks)
    found = {}
    for task in sorted(set(dataset.tasks)):
        inside = dataset.quality[tasks == task]
        seen = np.isfinite(inside).sum(axis=0)
        shrunk = (np.nansum(inside, axis=0) + PRIOR_STRENGTH * means) / (seen + PRIOR_STRENGTH)
        found[task] = [round(float(value), 6) for value in shrunk]
    return found
