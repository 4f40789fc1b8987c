"""One more expert, learnt from a few probes, beside a fitted method that is not changed.

The new expert is assumed to find the same queries hard as the pool; its deviation from that is a Gaussian
process (Rasmussen and Williams 2006, chapter 2) over the pool's scores and, where the probes clearly
support it, over the query's embedding. The other experts' outcomes on the same probes show how lucky the
draw of probes was: a control variate (Lavenberg and Welch 1981).
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from router.core import FloatArray, QueryBatch, TrainingSet
from router.errors import MethodError, WeightsError
from router.methods.contract import RoutingMethod
from router.methods.registry import make, method_class

POOLED = 3.0
"""Weight of the mean over the pool, relative to one expert's own score."""
SCORES, LUCK = 0.8, 0.25
"""Prior variances, as multiples of the noise, of the parts that follow scores and luck; chosen on recorded
outcomes by leaving one expert out at a time, see docs/research-log.md."""
EMBEDDING = (0.0, 0.3, 3.0)
"""Prior variances that are tried for the part that follows the embedding."""
OUTCOME = 0.15
"""Variance of one outcome about its expectation, against which an expected mean is weighed."""
CLEARLY = 3.0
"""Log evidence that any but 0 needs in addition: a Bayes factor of 20."""


class AddedRouter:
    """A fitted method and one more expert, the last of the pool.

    Args:
        base: the method of the others, `{"name": …, "params": {…}}`.
    """

    name: ClassVar[str] = "added"

    def __init__(self, *, base: Mapping[str, Any] | None = None) -> None:
        self.base = base

    @property
    def params(self) -> dict[str, Any]:
        return {"base": None if self.base is None else dict(self.base)}

    def fit(self, training: TrainingSet, *, seed: int) -> Self:
        """Fit the base on all experts but the last, which is learnt as an added one."""
        name, given = self._named()
        if training.quality.shape[1] < 2:
            raise MethodError("an added expert needs a pool of at least one other")
        known = training.quality[:, :-1]
        others = TrainingSet(training.queries, known, None, training.tasks)
        fitted = make(name, given).fit(others, seed=seed)
        measured = np.isfinite(known)
        means = np.where(measured, known, 0.0).sum(axis=0) / np.maximum(measured.sum(axis=0), 1)
        return self.learn(fitted, training.queries, training.quality[:, -1], known, means)

    def learn(
        self,
        fitted: RoutingMethod,
        probes: QueryBatch,
        quality: FloatArray,
        others: FloatArray,
        means: FloatArray,
        centre: FloatArray | None = None,
        expected: tuple[float, float] | None = None,
    ) -> Self:
        """Learn the new expert from probes.

        Args:
            fitted: the method that scores the others.
            probes: [n] queries.
            quality: [n] measured quality of the new expert; NaN where not measured.
            others: [n, experts] measured quality of the others on these probes; NaN where unknown.
            means: [experts] the others' mean quality over all queries, not only the probes.
            centre: [dimension] the mean embedding of all queries; by default the probes'.
            expected: the new expert's mean quality over all queries before the probes, and its variance.
        """
        measured = np.isfinite(quality)
        probes, quality = probes.take(np.flatnonzero(measured)), quality[measured]
        others = others[measured]
        scores = fitted.score(probes)
        ease = scores - means
        luck = np.where(np.isfinite(others), others - scores, 0.0)
        self.fitted_, self.means_ = fitted, means
        self.centre_ = probes.embeddings.mean(axis=0) if centre is None else centre
        apart = probes.embeddings - self.centre_
        kernel = SCORES * _gram(ease) + LUCK * _gram(luck)
        target = quality - ease.mean(axis=1)
        intercept, dual, variance = _chosen(kernel, apart @ apart.T, target, expected)
        self.intercept_ = np.array([intercept])
        self.score_weights_ = SCORES * _apply(ease, dual)
        self.embedding_weights_ = variance * (apart.T @ dual)
        return self

    @property
    def mean(self) -> float:
        """The new expert's mean quality over all queries."""
        return float(np.clip(self.intercept_[0], 0.0, 1.0))

    def score(self, queries: QueryBatch) -> FloatArray:
        others = self.fitted_.score(queries)
        ease = others - self.means_
        new = self.intercept_ + ease.mean(axis=1) + ease @ self.score_weights_
        new = new + (queries.embeddings - self.centre_) @ self.embedding_weights_
        return np.concatenate([others, np.clip(new, 0.0, 1.0)[:, None]], axis=1)

    def arrays(self) -> dict[str, FloatArray]:
        own = {name: getattr(self, f"{name}_") for name in OWN}
        return own | {f"base.{name}": value for name, value in self.fitted_.arrays().items()}

    @classmethod
    def restore(cls, params: Mapping[str, Any], arrays: Mapping[str, FloatArray]) -> Self:
        restored = cls(**params)
        inner = {n.removeprefix("base."): value for n, value in arrays.items() if n.startswith("base.")}
        own = {name: value for name, value in arrays.items() if not name.startswith("base.")}
        if set(own) != set(OWN):
            raise WeightsError(f"an added expert needs the arrays {', '.join(OWN)}, found {', '.join(own)}")
        for name, value in own.items():
            setattr(restored, f"{name}_", value)
        name, given = restored._named()
        restored.fitted_ = method_class(name).restore(given, inner)
        return restored

    def _named(self) -> tuple[str, dict[str, Any]]:
        base = self.base or {"name": "knn"}
        if not isinstance(base.get("name"), str):
            raise MethodError(f"base must be {{name, params}}, found {base!r}")
        return base["name"], dict(base.get("params") or {})


OWN = ("means", "centre", "intercept", "score_weights", "embedding_weights")


def _gram(values: FloatArray) -> FloatArray:
    """Inner products of rows, with their mean over the pool as one more feature, [n, n]."""
    pooled = POOLED * values.mean(axis=1)
    gram: FloatArray = values @ values.T + np.outer(pooled, pooled)
    return gram


def _apply(values: FloatArray, dual: FloatArray) -> FloatArray:
    """Weights of the values, [experts], from the dual weights of `_gram`."""
    weights: FloatArray = values.T @ dual + POOLED**2 * (values.mean(axis=1) @ dual) / values.shape[1]
    return weights


def _chosen(
    kernel: FloatArray, embedding: FloatArray, target: FloatArray, expected: tuple[float, float] | None
) -> tuple[float, FloatArray, float]:
    """(intercept, dual weights, variance of the embedding's part) of the likeliest prior."""
    found = []
    for variance in EMBEDDING:
        evidence, intercept, dual = _solve(kernel + variance * embedding, target, expected)
        found.append((evidence - CLEARLY * (variance > 0), intercept, dual, variance))
    _, intercept, dual, variance = max(found, key=lambda one: one[0])
    return intercept, dual, variance


def _solve(
    kernel: FloatArray, target: FloatArray, expected: tuple[float, float] | None
) -> tuple[float, float, FloatArray]:
    """(log evidence, intercept, dual weights) with unit noise, whose scale is profiled out."""
    size = len(target)
    lower = np.linalg.cholesky(kernel + np.eye(size))
    sides = np.linalg.solve(lower.T, np.linalg.solve(lower, np.stack([np.ones(size), target], axis=1)))
    mean, precision = (0.0, 0.0) if expected is None else (expected[0], OUTCOME / expected[1])
    total = float(sides[:, 0].sum()) + precision
    intercept = (float(sides[:, 1].sum()) + precision * mean) / total
    dual = sides[:, 1] - intercept * sides[:, 0]
    scale = max(float((target - intercept) @ dual) / size, 1e-4)
    evidence = -0.5 * size * np.log(scale) - np.log(np.diag(lower)).sum()
    return float(evidence), intercept, dual
