"""Kinds of task that are recognised from the query, and each expert's expected quality at each kind.

The kinds and the expected qualities come from `router.priors`, before the experts were called at all; few
outcomes move them a little. Fitted on outcomes alone, the tasks' labels are the kinds.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from router.core import FloatArray, IntArray, QueryBatch, TrainingSet
from router.methods.arrays import take
from router.methods.discriminant import discriminant, posterior
from router.methods.shrink import PRIOR_STRENGTH, global_means


class PriorRouter:
    """The posterior of a discriminant over kinds, times expected qualities.

    Args:
        kinds: names of the kinds, for people.
    """

    name: ClassVar[str] = "prior"

    def __init__(self, *, kinds: Sequence[str] | None = None) -> None:
        self.kinds = kinds

    @property
    def params(self) -> dict[str, Any]:
        return {"kinds": None if self.kinds is None else list(self.kinds)}

    def fit(self, training: TrainingSet, *, seed: int) -> Self:
        means = global_means(training.quality)
        _, labels = np.unique(np.array(training.tasks or ("",) * len(training)), return_inverse=True)
        members = np.eye(int(labels.max()) + 1)[labels]
        seen = np.isfinite(training.quality)
        total = members.T @ np.where(seen, training.quality, 0.0) + PRIOR_STRENGTH * means
        return self.expect(training.queries.embeddings, labels, total / (members.T @ seen + PRIOR_STRENGTH))

    def expect(self, examples: FloatArray, labels: IntArray, means: FloatArray) -> Self:
        """Take expected qualities.

        Args:
            examples: [n, dimension] embeddings of queries of every kind.
            labels: [n] the kind of each, as the row of `means`.
            means: [kinds, experts] expected quality.
        """
        self.weights_, self.intercept_ = discriminant(examples, labels)
        self.means_ = means
        return self

    def moved(self, means: FloatArray) -> Self:
        """The same kinds with other expectations, [kinds, experts]."""
        other = type(self)(kinds=self.kinds)
        other.weights_, other.intercept_ = self.weights_, self.intercept_
        other.means_ = means
        return other

    def membership(self, embeddings: FloatArray) -> FloatArray:
        """Probability of each kind, [n, kinds]."""
        return posterior(embeddings, self.weights_, self.intercept_)

    def score(self, queries: QueryBatch) -> FloatArray:
        expected: FloatArray = np.clip(self.membership(queries.embeddings) @ self.means_, 0.0, 1.0)
        return expected

    def arrays(self) -> dict[str, FloatArray]:
        return {name: getattr(self, f"{name}_") for name in ARRAYS}

    @classmethod
    def restore(cls, params: Mapping[str, Any], arrays: Mapping[str, FloatArray]) -> Self:
        restored = cls(**params)
        for name, value in zip(ARRAYS, take(arrays, *ARRAYS), strict=True):
            setattr(restored, f"{name}_", value)
        return restored


ARRAYS = ("weights", "intercept", "means")
