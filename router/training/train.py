"""From outcomes to a policy: fit, calibrate, choose the preference, guard; all on training data.

Calibration and preferences are chosen on out-of-fold scores: each query is scored by a method that
never saw it. The method of the policy is then fitted on all data.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from router.calibration import Calibration
from router.core import FloatArray, IntArray, Preferences, QueryBatch, TrainingSet
from router.costs import CostModel, Regression
from router.data.dataset import Dataset, same_query
from router.encoders import EncoderSpec
from router.errors import OutcomesError
from router.guard import NoveltyGuard
from router.methods.clusters import MOST_TASKS
from router.methods.contract import CrosswiseMethod, RoutingMethod
from router.methods.registry import make
from router.methods.shrink import PRIOR_STRENGTH, global_means
from router.policy import Policy
from router.training.preference import LEAST_QUERIES, choose_preference

FOLDS = 5
LEAST_OF_EXPERT = 5
"""Different queries with an outcome of an expert that training needs: fewer may all be in one fold."""
CALIBRATE_FROM = 200
"""Queries from which isotonic curves gain more than their noise costs."""


def train(
    dataset: Dataset,
    embeddings: FloatArray,
    encoder: EncoderSpec,
    *,
    method: str,
    params: Mapping[str, Any] | None = None,
    seed: int = 0,
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
        notify: called with a line for each step, for a command line.

    Raises:
        OutcomesError: fewer than 20 different queries, of all or of an expert, or fewer than two experts.
        MethodError: unknown method or parameters.
    """
    check_trainable(dataset, method=method, params=params)
    batch = QueryBatch(dataset.texts, embeddings)
    training = TrainingSet(batch, dataset.quality, dataset.costs_usd, dataset.tasks)

    folds = fold_of(dataset.texts, seed=seed)
    notify(f"fitting {method} on {len(dataset)} queries, and scoring them out of fold ({FOLDS} folds)")
    fitted, scores = _fit(training, folds, method=method, params=params, seed=seed)
    if isinstance(fitted, CrosswiseMethod):  # its blend is calibrated by the least squares that made it
        calibration, calibrated = None, scores
    else:
        calibration, calibrated = _calibrate(scores, dataset.quality, folds)
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
    chosen = choose_preference(calibrated, expected, dataset, best=best)
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
    return Policy(
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


def fold_of(texts: tuple[str, ...], *, seed: int, folds: int = FOLDS) -> IntArray:
    """A fold for each query, [n]; identical queries share theirs."""
    normal = [same_query(text) for text in texts]
    distinct = sorted(set(normal))
    order = np.random.default_rng(seed).permutation(len(distinct))
    fold = {text: int(order[place] % folds) for place, text in enumerate(distinct)}
    return np.array([fold[text] for text in normal])


def _fit(
    training: TrainingSet, folds: IntArray, *, method: str, params: Mapping[str, Any] | None, seed: int
) -> tuple[RoutingMethod, FloatArray]:
    """The method fitted on everything, and out-of-fold scores, [n, experts].

    A method that cross-validates anyway returns its own; the others are fitted once per fold.
    """
    whole = make(method, params)
    if isinstance(whole, CrosswiseMethod):
        return whole, whole.fit_crosswise(training, folds, seed=seed)
    scores = np.empty(training.quality.shape)
    for fold in np.unique(folds):
        inside, outside = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        fitted = make(method, params).fit(training.take(inside), seed=seed)
        scores[outside] = fitted.score(training.queries.take(outside))
    return whole.fit(training, seed=seed), scores


def _calibrate(
    scores: FloatArray, quality: FloatArray, folds: IntArray
) -> tuple[Calibration | None, FloatArray]:
    """The calibration of the policy, and each score calibrated by one that did not see it."""
    if len(scores) < CALIBRATE_FROM:
        return None, scores
    apart = np.empty_like(scores)
    for half in (0, 1):
        held = folds % 2 == half
        apart[held] = Calibration.fit(scores[~held], quality[~held]).apply(scores[held])
    return Calibration.fit(scores, quality), apart


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
