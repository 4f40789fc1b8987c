"""k nearest neighbours: the experts' outcomes on the most similar training queries.

Fix and Hodges (1951); for routing, the TO-Router paper (arXiv 2408.12320) and arXiv 2505.12601, which
finds a tuned kNN at the level of learned routers. Neighbours are weighted by similarity and pulled
towards the pool's means.
"""

import importlib.util
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from router.core import FloatArray, IntArray, QueryBatch, TrainingSet
from router.errors import MethodError
from router.methods.arrays import take
from router.methods.shrink import filled, global_means

FAISS_FROM = 50_000
"""Rows from which FAISS searches, where it is installed; below, one matrix product is as fast."""

MOST_CELLS = 1 << 24
"""Similarities that are held in memory together: 64 MiB, and as much again twice to sort them."""


class KnnRouter:
    """The similarity-weighted mean over the nearest training queries.

    Args:
        k: number of neighbours; fewer where the training data is smaller.
        sharpness: weight of a neighbour = exp(sharpness × cosine similarity); 0 for equal weights.
        strength: the pool's means count as this many neighbours.
    """

    name: ClassVar[str] = "knn"

    def __init__(self, *, k: int = 100, sharpness: float = 8.0, strength: float = 3.0) -> None:
        self.k = k
        self.sharpness = sharpness
        self.strength = strength

    @property
    def params(self) -> dict[str, Any]:
        return {"k": self.k, "sharpness": self.sharpness, "strength": self.strength}

    def fit(self, training: TrainingSet, *, seed: int) -> Self:
        if self.k < 1:
            raise MethodError(f"k must be at least 1, found {self.k}")
        self.means_ = global_means(training.quality)
        self.quality_ = filled(training).astype(np.float32)
        self.index_ = np.ascontiguousarray(training.queries.embeddings, dtype=np.float16)
        self._search = _Searcher(self.index_)
        return self

    def score(self, queries: QueryBatch) -> FloatArray:
        similarity, rows = self._search(queries.embeddings, min(self.k, len(self.index_)))
        weight = np.exp(self.sharpness * (similarity - similarity[:, :1]))
        # Weights sum to the effective number of neighbours (Kish's effective sample size).
        effective = weight.sum(axis=1) ** 2 / (weight**2).sum(axis=1)
        near = np.einsum("nk,nke->ne", weight / weight.sum(axis=1, keepdims=True), self.quality_[rows])
        share = (effective / (effective + self.strength))[:, None]
        scores: FloatArray = np.clip(share * near + (1 - share) * self.means_, 0.0, 1.0)
        return scores

    def arrays(self) -> dict[str, FloatArray]:
        return {"index": self.index_, "quality": self.quality_, "means": self.means_}

    @classmethod
    def restore(cls, params: Mapping[str, Any], arrays: Mapping[str, FloatArray]) -> Self:
        restored = cls(**params)
        restored.index_, restored.quality_, restored.means_ = take(arrays, "index", "quality", "means")
        restored._search = _Searcher(restored.index_)
        return restored


class _Searcher:
    """Nearest rows by cosine similarity: (similarity [n, k], rows [n, k]), nearest first."""

    def __init__(self, index: FloatArray, *, cells: int = MOST_CELLS) -> None:
        self._faiss = None
        self._chunk = max(1, cells // max(1, len(index)))
        if len(index) >= FAISS_FROM and importlib.util.find_spec("faiss") is not None:
            import faiss

            self._faiss = faiss.IndexScalarQuantizer(
                index.shape[1], faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
            )
            self._faiss.add(index.astype(np.float32))
        else:
            self._rows = index.astype(np.float32)

    def __call__(self, embeddings: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
        queries = np.ascontiguousarray(embeddings, dtype=np.float32)
        if self._faiss is not None:
            found: tuple[FloatArray, IntArray] = self._faiss.search(queries, k)
            return found
        parts = [
            self._nearest(queries[at : at + self._chunk], k) for at in range(0, len(queries), self._chunk)
        ]
        if len(parts) == 1:
            return parts[0]
        return (
            np.concatenate([np.empty((0, k), np.float32), *(similarity for similarity, _ in parts)]),
            np.concatenate([np.empty((0, k), np.int64), *(rows for _, rows in parts)]),
        )

    def _nearest(self, queries: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
        similarity = queries @ self._rows.T
        if k < similarity.shape[1]:
            rows = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
        else:
            rows = np.tile(np.arange(similarity.shape[1]), (len(similarity), 1))
        near = np.take_along_axis(similarity, rows, axis=1)
        order = np.argsort(-near, axis=1, kind="stable")
        return np.take_along_axis(near, order, axis=1), np.take_along_axis(rows, order, axis=1)
