"""Groups of queries, and what every expert reaches in each: k-means clusters, or tasks that are told.

Shrunk per-cluster means, as Avengers (arXiv 2508.12631) and UniRoute (arXiv 2502.08773) route.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from router.core import FloatArray, IntArray, QueryBatch, TrainingSet
from router.errors import MethodError
from router.methods.arrays import take
from router.methods.shrink import global_means

STRENGTH = 20.0
"""The pool's means count as this many queries of a group."""


class ClustersRouter:
    """Soft membership in k-means clusters, times the clusters' shrunk means.

    Args:
        clusters: how many; fewer where there are fewer than 25 queries for each.
        sharpness: of the soft membership, exp(sharpness × cosine similarity to the centre).
    """

    name: ClassVar[str] = "clusters"

    def __init__(self, *, clusters: int = 48, sharpness: float = 20.0) -> None:
        self.clusters = clusters
        self.sharpness = sharpness

    @property
    def params(self) -> dict[str, Any]:
        return {"clusters": self.clusters, "sharpness": self.sharpness}

    def fit(self, training: TrainingSet, *, seed: int) -> Self:
        from sklearn.cluster import MiniBatchKMeans

        if self.clusters < 1:
            raise MethodError(f"clusters must be at least 1, found {self.clusters}")
        count = max(1, min(self.clusters, len(training) // 25))
        embeddings = training.queries.embeddings.astype(np.float32)
        found = MiniBatchKMeans(count, random_state=seed, n_init=3, batch_size=2048).fit(embeddings)
        centres = found.cluster_centers_
        self.centres_ = centres / np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), 1e-12)
        self.means_ = group_means(training.quality, found.labels_, count)
        return self

    def score(self, queries: QueryBatch) -> FloatArray:
        return _softmax(self.sharpness * (queries.embeddings @ self.centres_.T)) @ self.means_

    def arrays(self) -> dict[str, FloatArray]:
        return {"centres": self.centres_, "means": self.means_}

    @classmethod
    def restore(cls, params: Mapping[str, Any], arrays: Mapping[str, FloatArray]) -> Self:
        restored = cls(**params)
        restored.centres_, restored.means_ = take(arrays, "centres", "means")
        return restored


class TasksRouter:
    """The posterior of a task classifier times the tasks' shrunk means.

    Task labels teach it and are never asked for when it scores. Without any, clusters stand in.

    Args:
        strength: inverse penalty of the logistic regression.
        clusters: how many stand in for tasks where none are told.
    """

    name: ClassVar[str] = "tasks"

    def __init__(self, *, strength: float = 10.0, clusters: int = 24) -> None:
        self.strength = strength
        self.clusters = clusters

    @property
    def params(self) -> dict[str, Any]:
        return {"strength": self.strength, "clusters": self.clusters}

    def fit(self, training: TrainingSet, *, seed: int) -> Self:
        from sklearn.linear_model import LogisticRegression

        embeddings = training.queries.embeddings.astype(np.float64)
        labels = self._labels(training, seed)
        count = int(labels.max()) + 1
        self.means_ = group_means(training.quality, labels, count)
        weights: FloatArray = np.zeros((embeddings.shape[1], count))
        intercept: FloatArray = np.zeros(count)
        if count > 1:
            model = LogisticRegression(C=self.strength, max_iter=300).fit(embeddings, labels)
            weights, intercept = model.coef_.T, model.intercept_
            if count == 2:  # scikit-learn keeps one column for two classes
                weights = np.concatenate([-weights / 2, weights / 2], axis=1)
                intercept = np.concatenate([-intercept / 2, intercept / 2])
        self.weights_, self.intercept_ = weights.astype(np.float32), intercept
        return self

    def score(self, queries: QueryBatch) -> FloatArray:
        return _softmax(queries.embeddings @ self.weights_ + self.intercept_) @ self.means_

    def arrays(self) -> dict[str, FloatArray]:
        return {"weights": self.weights_, "intercept": self.intercept_, "means": self.means_}

    @classmethod
    def restore(cls, params: Mapping[str, Any], arrays: Mapping[str, FloatArray]) -> Self:
        restored = cls(**params)
        restored.weights_, restored.intercept_, restored.means_ = take(
            arrays, "weights", "intercept", "means"
        )
        return restored

    def _labels(self, training: TrainingSet, seed: int) -> IntArray:
        if training.tasks is not None:
            return np.unique(np.array(training.tasks), return_inverse=True)[1]
        from sklearn.cluster import MiniBatchKMeans

        count = max(1, min(self.clusters, len(training) // 20))
        embeddings = training.queries.embeddings.astype(np.float32)
        found = MiniBatchKMeans(count, random_state=seed, n_init=3, batch_size=2048).fit(embeddings)
        return np.unique(found.labels_, return_inverse=True)[1]


def group_means(quality: FloatArray, labels: IntArray, count: int) -> FloatArray:
    """Mean quality of every expert in every group, [groups, experts], pulled to the pool's means."""
    means = global_means(quality)
    seen = np.isfinite(quality)
    total, observed = np.zeros((count, len(means))), np.zeros((count, len(means)))
    np.add.at(total, labels, np.where(seen, quality, 0.0))
    np.add.at(observed, labels, seen.astype(float))
    shrunk: FloatArray = (total + STRENGTH * means) / (observed + STRENGTH)
    return shrunk


def _softmax(values: FloatArray) -> FloatArray:
    raised = np.exp(values - values.max(axis=1, keepdims=True))
    shares: FloatArray = raised / raised.sum(axis=1, keepdims=True)
    return shares
