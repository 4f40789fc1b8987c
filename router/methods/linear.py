"""Ridge regression of every expert's quality on the query's features.

Hoerl and Kennard (1970); the penalty pulls every prediction towards the expert's mean.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from router.core import FloatArray, QueryBatch, TrainingSet
from router.errors import MethodError
from router.methods.arrays import take
from router.methods.features import WORDS, hashed_words, surface
from router.methods.shrink import filled, global_means

SURFACE_SCALE = 0.3
"""Weight of the surface features beside an embedding of unit length."""


class LinearRouter:
    """Ridge on the embedding, with or without the text's surface.

    Args:
        penalty: of the squared weights; the more, the nearer to the expert's mean.
        surface: whether length, digits, options and the like are features too.
    """

    name: ClassVar[str] = "linear"

    def __init__(self, *, penalty: float = 100.0, surface: bool = True) -> None:
        self.penalty = penalty
        self.surface = surface

    @property
    def params(self) -> dict[str, Any]:
        return {"penalty": self.penalty, "surface": self.surface}

    def fit(self, training: TrainingSet, *, seed: int) -> Self:
        if self.penalty <= 0:
            raise MethodError(f"penalty must be above 0, found {self.penalty}")
        target = filled(training)
        features = self._features(training.queries)
        centre, mean = features.mean(axis=0), target.mean(axis=0)
        centred = features - centre
        gram = centred.T @ centred + self.penalty * np.eye(features.shape[1])
        self.weights_ = np.linalg.solve(gram, centred.T @ (target - mean)).astype(np.float32)
        self.intercept_ = mean - centre @ self.weights_
        return self

    def score(self, queries: QueryBatch) -> FloatArray:
        scores: FloatArray = np.clip(self._features(queries) @ self.weights_ + self.intercept_, 0.0, 1.0)
        return scores

    def arrays(self) -> dict[str, FloatArray]:
        return {"weights": self.weights_, "intercept": self.intercept_}

    @classmethod
    def restore(cls, params: Mapping[str, Any], arrays: Mapping[str, FloatArray]) -> Self:
        restored = cls(**params)
        restored.weights_, restored.intercept_ = take(arrays, "weights", "intercept")
        return restored

    def _features(self, queries: QueryBatch) -> FloatArray:
        if not self.surface:
            return queries.embeddings
        return np.concatenate([queries.embeddings, SURFACE_SCALE * surface(queries.texts)], axis=1)


class LexicalRouter:
    """Ridge on hashed words and word pairs: what the words themselves tell, whatever they mean.

    Args:
        penalty: of the squared weights.
    """

    name: ClassVar[str] = "lexical"

    def __init__(self, *, penalty: float = 10.0) -> None:
        self.penalty = penalty

    @property
    def params(self) -> dict[str, Any]:
        return {"penalty": self.penalty}

    def fit(self, training: TrainingSet, *, seed: int) -> Self:
        from scipy.sparse import csr_matrix
        from sklearn.linear_model import Ridge

        if self.penalty <= 0:
            raise MethodError(f"penalty must be above 0, found {self.penalty}")
        rows = [hashed_words(text) for text in training.queries.texts]
        starts = np.concatenate([[0], np.cumsum([len(columns) for columns, _ in rows])])
        columns = np.concatenate([columns for columns, _ in rows])
        values = np.concatenate([values for _, values in rows])
        matrix = csr_matrix((values, columns, starts), shape=(len(rows), WORDS))
        mean = global_means(training.quality)
        ridge = Ridge(alpha=self.penalty, solver="sparse_cg", fit_intercept=False, tol=1e-3, max_iter=200)
        ridge.fit(matrix, filled(training) - mean)
        self.weights_ = np.ascontiguousarray(np.atleast_2d(ridge.coef_).T, dtype=np.float16)
        self.means_ = mean
        return self

    def score(self, queries: QueryBatch) -> FloatArray:
        scores = np.empty((len(queries), len(self.means_)))
        for row, text in enumerate(queries.texts):
            columns, values = hashed_words(text)
            scores[row] = self.means_ + values @ self.weights_[columns].astype(np.float64)
        return np.clip(scores, 0.0, 1.0)

    def arrays(self) -> dict[str, FloatArray]:
        return {"weights": self.weights_, "means": self.means_}

    @classmethod
    def restore(cls, params: Mapping[str, Any], arrays: Mapping[str, FloatArray]) -> Self:
        restored = cls(**params)
        restored.weights_, restored.means_ = take(arrays, "weights", "means")
        return restored
