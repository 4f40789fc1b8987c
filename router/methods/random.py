"""Random scores, equal for equal queries: the baseline that every router must beat."""

import hashlib
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from router.core import FloatArray, IntArray, QueryBatch, TrainingSet
from router.methods.arrays import take


class RandomRouter:
    """Chooses every expert equally often, by a hash of the query and the seed."""

    name: ClassVar[str] = "random"

    @property
    def params(self) -> dict[str, Any]:
        return {}

    def fit(self, training: TrainingSet, *, seed: int) -> Self:
        self.seed_: IntArray = np.array([seed])
        self.width_: IntArray = np.array([training.quality.shape[1]])
        return self

    def score(self, queries: QueryBatch) -> FloatArray:
        key = str(int(self.seed_[0])).encode()
        scores = np.empty((len(queries), int(self.width_[0])))
        for row, text in enumerate(queries.texts):
            digest = hashlib.blake2b(text.encode("utf-8", "replace"), key=key, digest_size=8).digest()
            scores[row] = np.random.default_rng(int.from_bytes(digest)).random(scores.shape[1])
        return scores

    def arrays(self) -> dict[str, FloatArray]:
        return {"seed": self.seed_, "width": self.width_}  # type: ignore[dict-item]

    @classmethod
    def restore(cls, params: Mapping[str, Any], arrays: Mapping[str, FloatArray]) -> Self:
        restored = cls(**params)
        seed, width = take(arrays, "seed", "width")
        restored.seed_, restored.width_ = seed.astype(np.int64), width.astype(np.int64)
        return restored
