"""Ridge regression of every expert's quality on the query's features.

Hoerl and Kennard (1970); the penalty pulls every prediction towards the expert's mean.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from router.core import FloatArray, QueryBatch, TrainingSet
from router.errors import MethodError, WeightsError
from router.methods.arrays import clipped, take
from router.methods.crc32_words import crc32_words
from router.methods.features import WORDS, HashedWords, hashed_words, surface
from router.methods.shrink import filled, global_means

SURFACE_SCALE = 0.3
"""Weight of the surface features beside an embedding of unit length."""
MOST_STEPS, TOLERANCE, TINY = 200, 1e-3, 1e-30
"""When conjugate gradients stop: residuals this much smaller than at first."""


class LinearRouter:
    """Ridge on the embedding, with or without the text's surface.

    Args:
        penalty: of the squared weights; a higher one pulls closer to the expert's mean.
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
        self._weigh(np.linalg.solve(gram, centred.T @ (target - mean)).astype(np.float32))
        self.intercept_ = mean - centre @ self.weights_
        return self

    def score(self, queries: QueryBatch) -> FloatArray:
        width = queries.embeddings.shape[1]
        scores: FloatArray = queries.embeddings @ self._wide[:width]
        if self.surface:
            scores += surface(queries.texts) @ (SURFACE_SCALE * self._wide[width:])
        scores += self.intercept_
        return clipped(scores)

    def arrays(self) -> dict[str, FloatArray]:
        return {"weights": self.weights_, "intercept": self.intercept_}

    @classmethod
    def restore(cls, params: Mapping[str, Any], arrays: Mapping[str, FloatArray]) -> Self:
        restored = cls(**params)
        weights, restored.intercept_ = take(arrays, "weights", "intercept")
        restored._weigh(weights)
        return restored

    def _weigh(self, weights: FloatArray) -> None:
        """Single precision on disk, double in memory: no product converts them."""
        self.weights_, self._wide = weights, weights.astype(np.float64)

    def _features(self, queries: QueryBatch) -> FloatArray:
        if not self.surface:
            return queries.embeddings
        return np.concatenate([queries.embeddings, SURFACE_SCALE * surface(queries.texts)], axis=1)


class LexicalRouter:
    """Ridge on hashed words and word pairs, with more weight on rare ones.

    Args:
        penalty: of the squared weights.
        hashing: from words to columns; `crc32` is that of older policies, and slower.
    """

    name: ClassVar[str] = "lexical"

    def __init__(self, *, penalty: float = 10.0, hashing: str = "rolling") -> None:
        self.penalty = penalty
        self.hashing = hashing

    @property
    def params(self) -> dict[str, Any]:
        return {"penalty": self.penalty, "hashing": self.hashing}

    def fit(self, training: TrainingSet, *, seed: int) -> Self:
        from scipy.sparse import csr_matrix

        if self.penalty <= 0:
            raise MethodError(f"penalty must be above 0, found {self.penalty}")
        words = self._words(training.queries.texts)
        seen = np.bincount(words.columns, minlength=WORDS)
        # Inverse document frequency (Spärck Jones 1972), plus 1 so that common words still count.
        self.rarity_ = (1.0 + np.log((len(training) + 1) / (seen + 1))).astype(np.float32)
        words = words.weighed(self.rarity_)
        matrix = csr_matrix((words.values, words.columns, words.starts), shape=(len(training), WORDS))
        self.means_ = global_means(training.quality)
        weights = _conjugate_gradients(matrix, filled(training) - self.means_, self.penalty)
        self._weigh(weights.astype(np.float16))
        return self

    def score(self, queries: QueryBatch) -> FloatArray:
        scores = self._words(queries.texts).weighed_times(self.rarity_, self._wide)
        scores += self.means_
        return clipped(scores)

    def arrays(self) -> dict[str, FloatArray]:
        return {"weights": self.weights_, "means": self.means_, "rarity": self.rarity_}

    @classmethod
    def restore(cls, params: Mapping[str, Any], arrays: Mapping[str, FloatArray]) -> Self:
        # Older policies have neither rarity nor another hashing.
        old = {} if "rarity" in arrays else {"rarity": np.ones(WORDS, dtype=np.float32)}
        restored = cls(**({"hashing": "crc32", **params} if old else params))
        arrays = {**arrays, **old}
        weights, restored.means_, restored.rarity_ = take(arrays, "weights", "means", "rarity")
        if len(weights) != WORDS or restored.rarity_.shape != (WORDS,):
            raise WeightsError(f"lexical weights need {WORDS} rows, found {len(weights)}")
        restored._weigh(weights)
        return restored

    def _weigh(self, weights: FloatArray) -> None:
        """Half precision on disk, single in memory: numpy converts slowly."""
        self.weights_, self._wide = weights, weights.astype(np.float32)

    def _words(self, texts: tuple[str, ...]) -> HashedWords:
        if self.hashing not in HASHINGS:
            raise MethodError(f"hashing must be one of {', '.join(HASHINGS)}, found {self.hashing!r}")
        return HASHINGS[self.hashing](texts)


HASHINGS: dict[str, Callable[[Sequence[str]], HashedWords]] = {"rolling": hashed_words, "crc32": crc32_words}


def _conjugate_gradients(matrix: Any, target: FloatArray, penalty: float) -> FloatArray:
    """Ridge weights of a sparse matrix for all outputs at once (Hestenes and Stiefel 1952)."""
    across = matrix.T.tocsr()
    left = across @ target
    weights: FloatArray = np.zeros_like(left)
    direction = left.copy()
    power = (left**2).sum(axis=0)
    enough = TOLERANCE**2 * power
    for _ in range(MOST_STEPS):
        if (power <= enough).all():
            break
        bent = across @ (matrix @ direction) + penalty * direction
        step = power / np.maximum((direction * bent).sum(axis=0), TINY)
        weights += step * direction
        left -= step * bent
        before, power = power, (left**2).sum(axis=0)
        direction = left + (power / np.maximum(before, TINY)) * direction
    return weights
