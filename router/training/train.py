"""From outcomes to a policy: fit, calibrate, choose the preference, guard; all on training data.

What is calibrated and chosen here is judged on out-of-fold scores: each query is scored by a
method that never saw it. The method that is kept is then fitted on everything.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from router.calibration import Calibration
from router.core import FloatArray, IntArray, Preferences, QueryBatch, TrainingSet
from router.costs import CostModel, Regression
from router.data.dataset import Dataset, same_query
from router.decide import decide
from router.encoders import EncoderSpec
from router.errors import OutcomesError
from router.guard import NoveltyGuard
from router.methods.clusters import MOST_TASKS
from router.methods.contract import CrosswiseMethod, RoutingMethod
from router.methods.registry import make
from router.methods.shrink import PRIOR_STRENGTH, global_means
from router.policy import Policy

FOLDS = 5
LEAST_QUERIES = 20
"""Different queries that training needs…"""
LEAST_OF_EXPERT = 5
"""…and with an outcome of each expert: fewer may all lie in one fold."""
CALIBRATE_FROM = 200
"""Queries from which isotonic curves are worth their noise."""
COST_WEIGHTS = (0.0, *np.geomspace(0.003, 30.0, 60).round(6).tolist(), 1e6)
"""Preferences that are tried and that the cost–quality curve shows."""
MOST_LOSS = 0.01
"""Quality that the default preference may give up for a saving."""
CONFIDENCE_Z = 0.7
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
        OutcomesError: fewer than 20 different queries, of all or of an expert, or fewer than two experts.
        MethodError: unknown method or parameters.
    """
    check_trainable(dataset, method=method, params=params)
    batch = QueryBatch(dataset.texts, embeddings)
    training = TrainingSet(batch, dataset.quality, dataset.costs_usd, dataset.tasks)

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
    """Before the encoding is paid for; raises as `train`."""
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


def _check_count(queries: Sequence[str], least: int, of_whom: str) -> None:
    if (found := len(set(queries))) < least:
        hint = f" in {len(queries)}: what differs in space and case alone counts once"
        raise OutcomesError(
            f"training needs outcomes{of_whom} on at least {least} different queries, found {found}"
            + hint * (found < len(queries))
        )


@dataclass(frozen=True)
class PreferenceTrial:
    """What one cost weight gives on queries that the scores did not see."""

    cost_weight: float
    gain: float
    """Mean quality over the best single expert's."""
    margin: float
    """That gain less `CONFIDENCE_Z` standard errors of the paired differences."""
    loss: float
    """Mean quality under cost weight 0's."""
    tolerated: float
    """Loss that is worth the saving: within a standard error, and within `MOST_LOSS`."""
    saved: float
    """Share of the best single expert's cost; 0 where no cost is known."""

    def to_json(self) -> dict[str, float]:
        names = ("cost_weight", "gain", "margin", "saved")
        return {name: float(getattr(self, name)) for name in names}


@dataclass(frozen=True)
class PreferenceChoice:
    """The preferences that training settles on, all by what was saved out of fold."""

    best_quality: PreferenceTrial
    """Cost weight 0."""
    default: PreferenceTrial
    """The greatest saving that gives up next to nothing of the best quality."""
    equal_quality: PreferenceTrial | None
    """The greatest saving that keeps the best single expert's quality, with a margin; `None` where no
    safe weight saves anything: then the best single expert itself is the choice."""


def choose_preference(
    scores: FloatArray, expected: FloatArray | None, dataset: Dataset, *, best: int
) -> PreferenceChoice:
    """Cost weights that hold out of sample, chosen by a lower confidence bound.

    A weight is safe when its `margin` over the best single expert is not negative. With none safe, or
    with costs of fewer than 20 complete queries, the default is weight 0.

    Args:
        scores: [n, experts], each row by a method that never saw it.
        expected: [n, experts] US$, as the policy will expect them.
        best: column of the best single expert.
    """
    rows, costs = _priced(dataset, expected), dataset.costs_usd
    if costs is None or len(rows) < LEAST_QUERIES or not costs[rows, best].mean() > 0:
        tried = [_tried(0.0, scores, None, dataset, dataset.complete(), best)]
    else:
        tried = [_tried(weight, scores, expected, dataset, rows, best) for weight in COST_WEIGHTS]
    safe = [one for one in tried if one.margin >= 0] if len(tried) > 1 else []
    near = [one for one in safe if one.loss <= one.tolerated]
    return PreferenceChoice(
        tried[0],
        max(near, key=lambda one: one.saved, default=tried[0]),
        max((one for one in safe if one.saved > 0), key=lambda one: one.saved, default=None),
    )


def _priced(dataset: Dataset, expected: FloatArray | None) -> IntArray:
    """Complete rows in which every expert's cost is known, both the measured and the expected one."""
    rows, costs = dataset.complete(), dataset.costs_usd
    if costs is None or expected is None:
        return rows[:0]
    return rows[np.isfinite(costs[rows] + expected[rows]).all(axis=1)]


def _tried(
    weight: float,
    scores: FloatArray,
    expected: FloatArray | None,
    dataset: Dataset,
    rows: IntArray,
    best: int,
) -> PreferenceTrial:
    if not len(rows):
        return PreferenceTrial(weight, 0.0, 0.0, 0.0, 0.0, 0.0)
    quality, each = dataset.quality[rows], np.arange(len(rows))
    wanted = None if expected is None else expected[rows]
    picked = decide(scores[rows], wanted, preferences=Preferences(cost_weight=weight)).best
    at_zero = decide(scores[rows], wanted, preferences=Preferences(cost_weight=0.0)).best
    gain = quality[each, picked] - quality[:, best]
    loss = quality[each, at_zero] - quality[each, picked]
    paid = None if dataset.costs_usd is None else dataset.costs_usd[rows]
    known = paid is not None and bool(np.isfinite(paid).all())
    alone = 0.0 if paid is None or not known else float(paid[:, best].mean())
    return PreferenceTrial(
        cost_weight=float(weight),
        gain=float(gain.mean()),
        margin=float(gain.mean() - CONFIDENCE_Z * _standard_error(gain)),
        loss=float(loss.mean()),
        tolerated=min(_standard_error(loss), MOST_LOSS),
        saved=0.0 if paid is None or alone <= 0 else 1 - float(paid[each, picked].mean()) / alone,
    )


def _standard_error(differences: FloatArray) -> float:
    return float(differences.std() / np.sqrt(len(differences)))


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
