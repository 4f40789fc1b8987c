"""A method as a user would write it: one file, no import of ours but the nouns."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from router.core import FloatArray, QueryBatch, TrainingSet


class SpellingRouter:
    """Two means: of the queries that begin with a word, and of the others."""

    name: ClassVar[str] = "spelling"

    def __init__(self, *, word: str = "Spell") -> None:
        self.word = word

    @property
    def params(self) -> dict[str, Any]:
        return {"word": self.word}

    def fit(self, training: TrainingSet, *, seed: int) -> Self:
        begins = self._begins(training.queries)
        self.means_ = np.stack([np.nanmean(training.quality[begins == part], axis=0) for part in (0, 1)])
        return self

    def score(self, queries: QueryBatch) -> FloatArray:
        scores: FloatArray = self.means_[self._begins(queries)]
        return scores

    def arrays(self) -> dict[str, FloatArray]:
        return {"means": self.means_}

    @classmethod
    def restore(cls, params: Mapping[str, Any], arrays: Mapping[str, FloatArray]) -> Self:
        restored = cls(**params)
        restored.means_ = arrays["means"]
        return restored

    def _begins(self, queries: QueryBatch) -> Any:
        return np.array([int(text.startswith(self.word)) for text in queries.texts], dtype=int)
