"""Notice queries unlike anything seen in training, and answer them with the pool's means.

Out of domain, embedding routers fall to chance (routing science, section 3.4); the shrunk means do not.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from router.core import BoolArray, FloatArray
from router.errors import WeightsError

REFERENCES = 2048
"""Training queries that are kept to compare with; 1.5 MiB at 384 dimensions."""
QUANTILE = 0.005
"""Share of the training queries that would themselves count as unfamiliar…"""
MARGIN = 0.15
"""…less this much cosine similarity, so that only what is truly far is held back."""


@dataclass(frozen=True)
class Guard:
    """Training queries to compare with, how near is near enough, and what to say otherwise."""

    references: FloatArray  # [references, dimension] float16, unit rows
    threshold: float
    means: FloatArray  # [experts]

    @classmethod
    def fit(cls, embeddings: FloatArray, means: FloatArray, *, seed: int) -> Self:
        rng = np.random.default_rng(seed)
        kept = np.sort(rng.permutation(len(embeddings))[:REFERENCES])
        references = embeddings[kept].astype(np.float16)
        near = references.astype(np.float32) @ references.astype(np.float32).T
        np.fill_diagonal(near, -1.0)
        nearest = near.max(axis=1) if len(kept) > 1 else np.array([0.0])
        return cls(references, float(np.quantile(nearest, QUANTILE)) - MARGIN, means)

    def unfamiliar(self, embeddings: FloatArray) -> BoolArray:
        """Whether no training query is near, [n]."""
        near = embeddings.astype(np.float32) @ self.references.astype(np.float32).T
        # Not `<`: a row that is not finite is near to nothing.
        far: BoolArray = ~(near.max(axis=1) >= self.threshold)
        return far

    def arrays(self) -> dict[str, FloatArray]:
        return {"references": self.references, "threshold": np.array([self.threshold]), "means": self.means}

    @classmethod
    def restore(cls, arrays: Mapping[str, FloatArray]) -> Self:
        missing = {"references", "threshold", "means"} - arrays.keys()
        if missing:
            raise WeightsError(f"the guard lacks {', '.join(sorted(missing))}")
        return cls(arrays["references"], float(arrays["threshold"][0]), arrays["means"])
