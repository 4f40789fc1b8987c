"""The same scores for every query: each expert's mean quality, or one preferred expert."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from router.core import FloatArray, QueryBatch, TrainingSet
from router.errors import MethodError
from router.methods.arrays import take
from router.methods.shrink import global_means


class FixedRouter:
    """The baseline of every table: the best single expert of the training data.

    Args:
        column: the expert to prefer, by its column in the pool; `None` for the best on average.
    """

    name: ClassVar[str] = "fixed"

    def __init__(self, *, column: int | None = None) -> None:
        self.column = column

    @property
    def params(self) -> dict[str, Any]:
        return {"column": self.column}

    def fit(self, training: TrainingSet, *, seed: int) -> Self:
        means = global_means(training.quality)
        if self.column is not None:
            if not 0 <= self.column < len(means):
                raise MethodError(f"column must be in 0..{len(means) - 1}, found {self.column}")
            means = np.where(np.arange(len(means)) == self.column, 1.0, means * 0.5)
        self.means_ = means
        return self

    def score(self, queries: QueryBatch) -> FloatArray:
        return np.tile(self.means_, (len(queries), 1))

    def arrays(self) -> dict[str, FloatArray]:
        return {"means": self.means_}

    @classmethod
    def restore(cls, params: Mapping[str, Any], arrays: Mapping[str, FloatArray]) -> Self:
        restored = cls(**params)
        (restored.means_,) = take(arrays, "means")
        return restored
