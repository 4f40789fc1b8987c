"""From outcomes to a policy: fit, calibrate, choose the preference, guard; all on training data.

What is calibrated and chosen here is judged on out-of-fold scores: each query is scored by a
method that never saw it. The method that is kept is then fitted on everything.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from router.calibration import Calibration
from router.core import FloatArray, IntArray, Preferences, QueryBatch, TrainingSet
from router.costs import CostModel
from router.data.dataset import Dataset, same_query
from router.decide import decide
from router.encoders import EncoderSpec
from router.errors import OutcomesError
from router.guard import Guard
from router.methods.contract import CrosswiseMethod, RoutingMethod
from router.methods.registry import make
from router.methods.shrink import PRIOR_STRENGTH, global_means
from router.policy import Policy

FOLDS = 5
LEAST_QUERIES = 20
CALIBRATE_FROM = 200
"""Queries from which isotonic curves are worth their noise."""
COST_WEIGHTS = (0.0, *np.geomspace(0.003, 30.0, 60).round(6).tolist(), 1e6)
"""Preferences that are tried and that the cost–quality curve shows."""
MOST_TASKS = 1000
"""With more of them a task is no task but a query's name."""
CONFIDENCE_Z = 1.0
"""Standard errors by which the chosen preference must not fall below the best single expert."""


def train(
    dataset: Dataset,
    embeddings: FloatArray,
    encoder: EncoderSpec,
    *,
    method: str,
    params: Mapping[str, Any] | None = None,
    seed: int = 0,
    tell: Callable[[str], None] = lambda line: None,
) -> Policy:
    """Train a policy on all queries of `dataset`.

    Args:
        embeddings: [n, dimension] of the data set's queries, made with `encoder`.
        tell: told each step, for a command line.

    Raises:
        OutcomesError: fewer than 20 queries, or an expert without outcomes.
        MethodError: unknown method or parameters.
        PoolError: fewer than two experts.
    """
    _check(dataset, method)
    batch = QueryBatch(dataset.texts, embeddings)
    training = TrainingSet(batch, dataset.quality, dataset.costs_usd, dataset.tasks)
    make(method, params)  # refuse a bad name or parameter before any work is done

    folds = fold_of(dataset.texts, seed=seed)
    tell(f"fitting {method} on {len(dataset)} queries, and scoring them out of fold ({FOLDS} folds)")
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
    means = global_means(dataset.quality)
    guard = Guard.fit(embeddings, means, seed=seed)
    expected = costs.predict(embeddings, dataset.texts)
    best = int(np.argmax(means))
    chosen, dearest = choose_preference(calibrated, expected, dataset, best=best)
    facts = {
        "data_sha256": dataset.sha256,
        "seed": seed,
        "metrics": {
            "expert_means": {name: float(means[column]) for column, name in enumerate(dataset.pool.names)},
            "out_of_fold": {"best_quality": dearest, "equal_quality": chosen},
        },
        "n_queries": len(dataset),
        "best_single": dataset.pool.names[best],
        "equal_quality_cost_weight": chosen["cost_weight"],
        "task_means": _task_means(dataset, means),
    }
    return Policy(
        pool=dataset.pool,
        encoder=encoder,
        method=fitted,
        costs=costs,
        guard=guard,
        static_ranking=tuple(dataset.pool.names[column] for column in np.argsort(-means, kind="stable")),
        preferences=Preferences(cost_weight=chosen["cost_weight"]),
        calibration=calibration,
        training=facts,
    )


def choose_preference(
    scores: FloatArray, expected: FloatArray | None, dataset: Dataset, *, best: int
) -> tuple[dict[str, float], dict[str, float]]:
    """The `cost_weight` that saves most while quality stays, with a margin, at the best single expert's.

    A weight counts as safe when the mean gain over the best single expert, less `CONFIDENCE_Z`
    standard errors of the paired differences, is not negative. With none safe, or without costs: 0.

    Returns:
        Figures at the chosen weight, and at weight 0: `cost_weight`, mean `gain` over the best single
        expert, that gain less its `margin`, share of its cost `saved`.
    """
    rows = dataset.complete()
    if not len(rows):
        return {"cost_weight": 0.0}, {"cost_weight": 0.0}
    quality, costs = dataset.quality[rows], dataset.costs_usd
    paid = None if costs is None else costs[rows]
    each, tried = np.arange(len(rows)), []
    for weight in COST_WEIGHTS if expected is not None else (0.0,):
        ranked = decide(
            scores[rows],
            None if expected is None else expected[rows],
            preferences=Preferences(cost_weight=weight),
        )
        gain = quality[each, ranked.best] - quality[:, best]
        margin = gain.mean() - CONFIDENCE_Z * gain.std() / np.sqrt(len(gain))
        saved = 0.0 if paid is None else 1 - paid[each, ranked.best].mean() / max(paid[:, best].mean(), 1e-12)
        figures = {"cost_weight": weight, "gain": gain.mean(), "margin": margin, "saved": saved}
        tried.append({name: float(value) for name, value in figures.items()})
    safe = [figures for figures in tried if paid is not None and figures["margin"] >= 0]
    return max(safe, key=lambda figures: figures["saved"], default=tried[0]), tried[0]


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

    A method that cross-validates anyway hands its own over; the others are fitted once per fold.
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
    """The calibration to keep, and the scores as a calibration that did not see them makes them."""
    if len(scores) < CALIBRATE_FROM:
        return None, scores
    apart = np.empty_like(scores)
    for half in (0, 1):
        held = folds % 2 == half
        apart[held] = Calibration.fit(scores[~held], quality[~held]).apply(scores[held])
    return Calibration.fit(scores, quality), apart


def _task_means(dataset: Dataset, means: FloatArray) -> dict[str, list[float]] | None:
    """Task → each expert's mean, shrunk to the global ones; told in reports, never read to decide."""
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


def _check(dataset: Dataset, method: str) -> None:
    if len(dataset) < LEAST_QUERIES:
        raise OutcomesError(f"training needs at least {LEAST_QUERIES} queries, found {len(dataset)}")
    if len(dataset.pool) < 2 and method != "fixed":
        raise OutcomesError(
            f"routing needs at least two experts, the outcomes hold only {dataset.pool.names[0]!r}"
        )
