"""Detect queries unlike all training queries, and use the pool's means for them.

Out of domain, embedding routers fall to chance; the shrunk means do not.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from router.core import BoolArray, FloatArray
from router.errors import WeightsError

REFERENCES = 1024
"""Training queries that are kept to compare with; 0.75 MiB on disk at 384 dimensions."""
FIRST = 128
"""References that are looked at first: most queries are near to one of them already."""
QUANTILE = 0.01
"""Share of the training queries that would themselves count as unfamiliar, before `MARGIN`."""
MARGIN = 0.05
"""Cosine similarity subtracted from that quantile, so that out of sample the share is not larger."""
CEILING = 0.45
"""A cosine similarity that is always near enough: training queries made from a few templates are so
similar that a paraphrase would count as far."""


@dataclass(frozen=True)
class NoveltyGuard:
    """Training queries to compare with, the similarity that is near enough, and the scores otherwise."""

    references: FloatArray  # [references, dimension] float32, unit rows; half as wide on disk
    threshold: float
    means: FloatArray  # [experts]

    @classmethod
    def fit(cls, embeddings: FloatArray, means: FloatArray, *, seed: int) -> Self:
        """Learn from embeddings [n, dimension]; `means` [experts] are the scores of unfamiliar queries."""
        rng = np.random.default_rng(seed)
        kept = np.sort(rng.permutation(len(embeddings))[:REFERENCES])
        references = embeddings[kept].astype(np.float16).astype(np.float32)  # as they come back from disk
        near = references @ references.T
        np.fill_diagonal(near, -1.0)
        nearest = near.max(axis=1) if len(kept) > 1 else np.array([0.0])
        threshold = min(float(np.quantile(nearest, QUANTILE)) - MARGIN, CEILING)
        return cls(references, threshold, means)

    def unfamiliar(self, embeddings: FloatArray) -> BoolArray:
        """Whether no training query is near, [n]."""
        rows = embeddings.astype(np.float32, copy=False)
        # Not `<`: a row that is not finite is near to nothing.
        far: BoolArray = ~((rows @ self.references[:FIRST].T).max(axis=1) >= self.threshold)
        if len(self.references) > FIRST and far.any():
            others = rows[far] @ self.references[FIRST:].T
            far[far] = ~(others.max(axis=1) >= self.threshold)
        return far

    def nearest(self, embeddings: FloatArray) -> FloatArray:
        """Cosine similarity to the nearest training query of those that are kept, [n]."""
        found: FloatArray = (embeddings.astype(np.float32, copy=False) @ self.references.T).max(axis=1)
        return found

    def arrays(self) -> dict[str, FloatArray]:
        """Named arrays for safetensors."""
        stored = self.references.astype(np.float16)
        return {"references": stored, "threshold": np.array([self.threshold]), "means": self.means}

    @classmethod
    def restore(cls, arrays: Mapping[str, FloatArray]) -> Self:
        """The guard again, from its arrays.

        Raises:
            WeightsError: an array is missing.
        """
        missing = {"references", "threshold", "means"} - arrays.keys()
        if missing:
            raise WeightsError(f"the guard lacks {', '.join(sorted(missing))}")
        return cls(arrays["references"].astype(np.float32), float(arrays["threshold"][0]), arrays["means"])
