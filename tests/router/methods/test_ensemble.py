"""A blend is the weighted level of its members' scores and their weighted contrast, clipped together."""

from dataclasses import replace

import numpy as np

from router.core import FloatArray
from router.methods.ensemble import AutoRouter, EnsembleRouter
from tests.router.data_sets import training


def by_parts(router: EnsembleRouter, scores: FloatArray) -> FloatArray:
    """The same from its definition; scores [members, n, experts]."""
    apart = scores - router.means_
    level = apart.mean(axis=2, keepdims=True)
    weights = router.contrast_[:, None, None], router.level_[:, None, None]
    moved = (weights[0] * (apart - level) + weights[1] * level).sum(axis=0)
    blended = router.means_ + moved
    return np.clip(blended - np.maximum(blended.max(axis=1, keepdims=True) - 1, 0), 0, 1)


def test_a_blend_follows_its_definition() -> None:
    data = training()
    router = EnsembleRouter().fit(data, seed=0)
    queries = data.queries.take(np.arange(50))
    scores = np.stack([member.score(queries) for member in router.fitted_])

    np.testing.assert_allclose(router.score(queries), by_parts(router, scores), atol=1e-12)


def test_a_blend_learns_from_one_outcome_a_query() -> None:
    data = training()
    seen = np.random.default_rng(0).integers(data.quality.shape[1], size=len(data))
    hidden = np.arange(data.quality.shape[1]) != seen[:, None]
    gaps = replace(data, quality=np.where(hidden, np.nan, data.quality))
    chosen = AutoRouter().fit(gaps, seed=0).score(data.queries).argmax(axis=1)

    best_single = data.quality.mean(axis=0).max()
    assert data.quality[np.arange(len(data)), chosen].mean() > best_single + 0.2


def test_scores_above_one_keep_their_differences() -> None:
    router = EnsembleRouter(members=["linear", "knn"]).fit(training(), seed=0)
    router.contrast_, router.level_ = np.array([2.0, 1.0]), np.array([3.0, 0.5])
    restored = EnsembleRouter.restore(router.params, router.arrays())
    scores = np.random.default_rng(0).uniform(0.5, 1, size=(2, 20, len(router.means_)))

    blended = restored._blend(scores)
    np.testing.assert_allclose(blended, by_parts(restored, scores), atol=1e-12)
    assert (blended.max(axis=1) == 1).any()
