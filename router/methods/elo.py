"""Similarity-weighted ranking: a Bradley–Terry model of which expert beats which on similar queries.

Bradley and Terry (1952), weighted by similarity as RouteLLM's ranking router (arXiv 2406.18665). It reads
only which of two experts did better, so it learns from pairwise verdicts as well as from grades; the
outcomes of all queries are its prior.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from router.core import FloatArray, QueryBatch, TrainingSet
from router.errors import MethodError
from router.methods.arrays import take
from router.methods.shrink import global_means

MISSING = -1.0
"""Stored for a quality that was not measured, because stored numbers must be finite."""
STEPS = 50
"""Steps of minorisation–maximisation (Hunter 2004)."""
CHUNK = 64
DRAWN = 0.5
"""Draws added to every pair, so that every strength is finite."""


class EloRouter:
    """Bradley–Terry strengths from the games of the nearest training queries.

    Args:
        k: number of neighbours; fewer where the training data is smaller.
        sharpness: weight of a neighbour = exp(sharpness × cosine similarity).
        strength: all queries together count as this many games of each pair.
    """

    name: ClassVar[str] = "elo"

    def __init__(self, *, k: int = 200, sharpness: float = 8.0, strength: float = 20.0) -> None:
        self.k = k
        self.sharpness = sharpness
        self.strength = strength

    @property
    def params(self) -> dict[str, Any]:
        return {"k": self.k, "sharpness": self.sharpness, "strength": self.strength}

    def fit(self, training: TrainingSet, *, seed: int) -> Self:
        if self.k < 1:
            raise MethodError(f"k must be at least 1, found {self.k}")
        means = global_means(training.quality)
        self.index_ = np.ascontiguousarray(training.queries.embeddings, dtype=np.float16)
        quality = np.where(np.isfinite(training.quality), training.quality, MISSING)
        self.quality_ = quality.astype(np.float32)
        count = len(self.quality_)
        wins = np.zeros((len(means), len(means)))
        for at in range(0, count, CHUNK):
            part = self.quality_[None, at : at + CHUNK]
            wins += _wins(part, np.ones(part.shape[:2], dtype=np.float32))[0]
        games = wins + wins.T
        share = np.where(games > 0, wins / np.maximum(games, 1), 0.5)
        np.fill_diagonal(share, 0.0)
        self.prior_ = share
        strengths = _bradley_terry(self.strength * share[None])[0]
        # The scale from strengths to quality is that of the means over all queries.
        around = strengths - strengths.mean()
        slope = float(around @ (means - means.mean())) / max(float(around @ around), 1e-12)
        self.line_ = np.array([max(slope, 0.0), means.mean() - max(slope, 0.0) * strengths.mean()])
        return self

    def score(self, queries: QueryBatch) -> FloatArray:
        parts = [
            self._score(np.asarray(queries.embeddings[at : at + CHUNK], dtype=np.float32))
            for at in range(0, len(queries), CHUNK)
        ]
        return np.concatenate(parts) if parts else np.empty((0, len(self.prior_)))

    def arrays(self) -> dict[str, FloatArray]:
        return {
            "index": self.index_,
            "quality": self.quality_,
            "prior": self.prior_,
            "line": self.line_,
        }

    @classmethod
    def restore(cls, params: Mapping[str, Any], arrays: Mapping[str, FloatArray]) -> Self:
        restored = cls(**params)
        restored.index_, restored.quality_, restored.prior_, restored.line_ = take(
            arrays, "index", "quality", "prior", "line"
        )
        return restored

    def _score(self, embeddings: FloatArray) -> FloatArray:
        similarity = embeddings @ self.index_.astype(np.float32).T
        k = min(self.k, similarity.shape[1])
        rows = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
        near = np.take_along_axis(similarity, rows, axis=1)
        weight = np.exp(self.sharpness * (near - near.max(axis=1, keepdims=True)))
        # Weights sum to the effective number of games (Kish's effective sample size).
        weight *= (weight.sum(axis=1) / (weight**2).sum(axis=1))[:, None]
        wins = _wins(self.quality_[rows], weight.astype(np.float32)) + self.strength * self.prior_
        slope, intercept = self.line_
        scores: FloatArray = np.clip(slope * _bradley_terry(wins) + intercept, 0.0, 1.0)
        return scores


def _wins(quality: FloatArray, weight: FloatArray) -> FloatArray:
    """Weighted wins of each expert (rows) over each other (columns); a draw is half a win for both.

    Args:
        quality: [n, k, experts].
        weight: [n, k].
    """
    n, _, width = quality.shape
    seen = (quality >= 0).astype(np.float32)
    found = np.zeros((n, width, width))
    for one in range(width):
        mine = quality[:, :, one, None]
        games = seen * seen[:, :, one, None]
        beaten = games * (0.5 + 0.5 * np.sign(mine - quality))
        found[:, one] = np.einsum("nk,nke->ne", weight, beaten)
        found[:, one, one] = 0.0
    return found


def _bradley_terry(wins: FloatArray) -> FloatArray:
    """Log strengths that make the wins [n, experts, experts] likeliest, [n, experts], mean 0."""
    width = wins.shape[1]
    played = wins + DRAWN * (1 - np.eye(width))
    games, won = played + np.transpose(played, (0, 2, 1)), played.sum(axis=2)
    power: FloatArray = np.ones(won.shape)
    for _ in range(STEPS):
        power = won / (games / (power[:, :, None] + power[:, None, :])).sum(axis=2)
        power = power / np.exp(np.log(power).mean(axis=1, keepdims=True))
    return np.log(power)
