"""Every expert's mean quality in groups of queries: k-means clusters, or labelled tasks.

Shrunk per-cluster means, as in Avengers (arXiv 2508.12631) and UniRoute (arXiv 2502.08773).
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from router.core import FloatArray, IntArray, QueryBatch, TrainingSet
from router.errors import MethodError
from router.methods.arrays import take
from router.methods.discriminant import discriminant
from router.methods.shrink import global_means

STRENGTH = 20.0
"""The pool's means count as this many queries of a group."""
STEPS, MOST_CLUSTERED = 10, 4000
"""Rounds of k-means, and queries that take part in them; of more, a sample."""

MOST_RAISED = 80.0
"""Single precision holds the exponential of this, of its negative, and sums of thousands of them."""
MOST_TASKS = 1000
"""With more of them the labels are names of queries, not tasks."""


class ClustersRouter:
    """Soft membership in k-means clusters, times the clusters' shrunk means.

    Args:
        clusters: their number; fewer where there are fewer than 25 queries for each.
        sharpness: of the soft membership, exp(sharpness × cosine similarity to the centre).
        soft: whether a query counts in all clusters by its membership, not only in its own; many soft
            clusters approximate nearest neighbours at a fraction of the work.
    """

    name: ClassVar[str] = "clusters"

    def __init__(self, *, clusters: int = 48, sharpness: float = 20.0, soft: bool = False) -> None:
        self.clusters = clusters
        self.sharpness = sharpness
        self.soft = soft

    @property
    def params(self) -> dict[str, Any]:
        return {"clusters": self.clusters, "sharpness": self.sharpness, "soft": self.soft}

    def fit(self, training: TrainingSet, *, seed: int) -> Self:
        if self.clusters < 1:
            raise MethodError(f"clusters must be at least 1, found {self.clusters}")
        embeddings = training.queries.embeddings.astype(np.float32)
        count = max(1, min(self.clusters, len(training) // (5 if self.soft else 25)))
        self.centres_, labels = _k_means(embeddings, count, seed=seed)
        self._sharpen()
        members = self._membership(embeddings) if self.soft else np.eye(count)[labels]
        self.means_ = group_means(training.quality, members)
        self._summed = _with_ones(self.means_)
        return self

    def score(self, queries: QueryBatch) -> FloatArray:
        return _mixed(_raised(self._logits(queries.embeddings), self.sharpness), self._summed)

    def arrays(self) -> dict[str, FloatArray]:
        return {"centres": self.centres_, "means": self.means_}

    @classmethod
    def restore(cls, params: Mapping[str, Any], arrays: Mapping[str, FloatArray]) -> Self:
        restored = cls(**params)
        restored.centres_, restored.means_ = take(arrays, "centres", "means")
        restored._sharpen()
        restored._summed = _with_ones(restored.means_)
        return restored

    def _sharpen(self) -> None:
        self._sharpened = np.ascontiguousarray(self.sharpness * self.centres_.T)

    def _logits(self, embeddings: FloatArray) -> FloatArray:
        logits: FloatArray = embeddings @ self._sharpened
        return logits

    def _membership(self, embeddings: FloatArray) -> FloatArray:
        raised = _raised(self._logits(embeddings), self.sharpness)
        shares: FloatArray = raised / raised.sum(axis=1, keepdims=True)
        return shares


class TasksRouter:
    """The posterior of a task classifier times the tasks' shrunk means.

    The classifier is a linear discriminant (Fisher 1936). It learns from task labels and scores without
    them. Without labels, or with more than 1,000 different ones, clusters replace them.

    Args:
        clusters: number of clusters where the training data has no task labels.
    """

    name: ClassVar[str] = "tasks"

    def __init__(self, *, clusters: int = 24) -> None:
        self.clusters = clusters

    @property
    def params(self) -> dict[str, Any]:
        return {"clusters": self.clusters}

    def fit(self, training: TrainingSet, *, seed: int) -> Self:
        labels = self._labels(training, seed)
        members = np.eye(int(labels.max()) + 1)[labels]
        self.means_ = group_means(training.quality, members)
        self._summed = _with_ones(self.means_)
        self.weights_, intercept = discriminant(training.queries.embeddings, labels)
        self.intercept_ = intercept + np.log(members.sum(axis=0) + 1)
        return self

    def score(self, queries: QueryBatch) -> FloatArray:
        return _mixed(_raised(queries.embeddings @ self.weights_ + self.intercept_, np.inf), self._summed)

    def arrays(self) -> dict[str, FloatArray]:
        return {"weights": self.weights_, "intercept": self.intercept_, "means": self.means_}

    @classmethod
    def restore(cls, params: Mapping[str, Any], arrays: Mapping[str, FloatArray]) -> Self:
        # "strength" belonged to the logistic regression of older policies; the arrays are alike.
        restored = cls(**{name: value for name, value in params.items() if name != "strength"})
        restored.weights_, restored.intercept_, restored.means_ = take(
            arrays, "weights", "intercept", "means"
        )
        restored._summed = _with_ones(restored.means_)
        return restored

    def _labels(self, training: TrainingSet, seed: int) -> IntArray:
        if training.tasks is not None and len(set(training.tasks)) <= MOST_TASKS:
            return np.unique(np.array(training.tasks), return_inverse=True)[1]
        count = max(1, min(self.clusters, len(training) // 20))
        labels = _k_means(training.queries.embeddings.astype(np.float32), count, seed=seed)[1]
        return np.unique(labels, return_inverse=True)[1]


def group_means(quality: FloatArray, members: FloatArray) -> FloatArray:
    """Mean quality of every expert in every group, [groups, experts], pulled to the pool's means.

    The differences between experts in a group are shrunk further, as far as chance explains them: the best
    of many experts in a group is partly luck (empirical Bayes: Efron and Morris 1973).

    Args:
        quality: [n, experts] in [0, 1]; NaN where not measured.
        members: [n, groups] membership of a query in a group; rows sum to 1.
    """
    means, seen = global_means(quality), np.isfinite(quality)
    count = members.T @ seen + STRENGTH
    apart = np.where(seen, quality - means, 0.0)
    moved = (members.T @ apart) / count
    level = moved.mean(axis=1, keepdims=True)
    contrast = moved - level
    spread = ((apart - apart.mean(axis=1, keepdims=True)) ** 2 * seen).sum(axis=0) / seen.sum(axis=0)
    noise = spread * ((members**2).T @ seen) / count**2
    signal = np.maximum((contrast**2 - noise).mean(axis=0), 0.0)
    shrunk: FloatArray = means + level + contrast * signal / np.maximum(signal + noise, 1e-12)
    return shrunk


def _k_means(embeddings: FloatArray, count: int, *, seed: int) -> tuple[FloatArray, IntArray]:
    """Centres of unit length and each row's cluster: spherical k-means (Dhillon and Modha 2001)."""
    rng = np.random.default_rng(seed)
    points = embeddings[rng.permutation(len(embeddings))[:MOST_CLUSTERED]]
    centres = points[rng.permutation(len(points))[:count]].copy()
    for _ in range(STEPS):
        labels = (points @ centres.T).argmax(axis=1)
        sums = np.zeros_like(centres)
        np.add.at(sums, labels, points)
        norms = np.linalg.norm(sums, axis=1, keepdims=True)
        centres = np.where(norms > 0, sums / np.maximum(norms, 1e-12), centres)  # an empty one stays
    return centres, (embeddings @ centres.T).argmax(axis=1)


def _raised(logits: FloatArray, most: float) -> FloatArray:
    """Exponentials of logits, which are overwritten, up to a factor for each row.

    Args:
        logits: [n, groups].
        most: no logit is further from 0.
    """
    if most > MOST_RAISED:
        logits -= logits.max(axis=1, keepdims=True)
    return np.exp(logits, out=logits)


def _mixed(raised: FloatArray, summed: FloatArray) -> FloatArray:
    """The groups' means, weighed by each row's softmax over the groups, [n, experts].

    Args:
        raised: [n, groups].
        summed: the means and a column of ones, [groups, experts + 1].
    """
    products = raised @ summed
    mixed: FloatArray = products[:, :-1] / products[:, -1:]
    return mixed


def _with_ones(means: FloatArray) -> FloatArray:
    return np.concatenate((means, np.ones((len(means), 1))), axis=1)
