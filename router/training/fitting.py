"""Fit a method, and score every query by a method that never saw it, calibrated likewise."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from router.calibration import Calibration
from router.core import FloatArray, IntArray, TrainingSet
from router.data.dataset import same_query
from router.methods.contract import CrosswiseMethod, RoutingMethod
from router.methods.registry import make
from router.methods.shrunk import ShrunkRouter, Target, pulled, target_weight

FOLDS = 5
CALIBRATE_FROM = 200
"""Queries from which isotonic curves gain more than their noise costs."""


def fit_calibrated(
    training: TrainingSet,
    folds: IntArray,
    *,
    method: str,
    params: Mapping[str, Any] | None,
    seed: int,
    target: Target | None = None,
) -> tuple[RoutingMethod, Calibration | None, FloatArray]:
    """The method fitted on everything, its calibration, and calibrated out-of-fold scores, [n, columns]."""
    fitted, scores = _fit(training, folds, method=method, params=params, seed=seed)
    crosswise = isinstance(fitted, CrosswiseMethod)
    if target is not None:
        experts = target.apart.shape[1]
        weight = target_weight(scores[:, :experts], target.apart, training.quality[:, :experts])
        scores = pulled(scores, target.apart, weight)
        base = {"name": fitted.name, "params": fitted.params}
        kinds = None if target.prior.kinds is None else list(target.prior.kinds)
        fitted = ShrunkRouter(base=base, kinds=kinds).pull(fitted, target.prior, weight)
    if crosswise:  # its blend is calibrated by the least squares that made it
        return fitted, None, scores
    return fitted, *_calibrate(scores, training.quality, folds)


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
