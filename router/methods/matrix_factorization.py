"""Matrix factorisation: queries and experts as vectors of few dimensions whose product is the outcome.

As RouteLLM (arXiv 2406.18665) and EmbedLLM (arXiv 2410.02223) route: the query's vector is a linear map
of its embedding, each expert's is learnt. Trained with torch, scored with numpy.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from router.core import FloatArray, QueryBatch, TrainingSet
from router.errors import MethodError
from router.methods.arrays import take
from router.methods.descent import Head, Weights, descend
from router.methods.shrink import global_means

NAMES = ("queries", "experts", "bias", "means", "scale")


class MatrixFactorizationRouter:
    """The product of a query's and each expert's vector.

    Args:
        rank: dimensions of the common space; fewer where the pool is smaller.
        head: `probability` or `soft_label`.
        temperature: of the soft label; it multiplies the qualities.
        epochs: maximum number; early stopping may end before.
        rate: AdamW's learning rate.
        decay: AdamW's weight decay.
    """

    name: ClassVar[str] = "matrix_factorization"

    def __init__(
        self,
        *,
        rank: int = 8,
        head: str = "probability",
        temperature: float = 10.0,
        epochs: int = 60,
        rate: float = 2e-3,
        decay: float = 0.1,
    ) -> None:
        self.rank = rank
        self.head = head
        self.temperature = temperature
        self.epochs = epochs
        self.rate = rate
        self.decay = decay

    @property
    def params(self) -> dict[str, Any]:
        return {
            name: getattr(self, name) for name in ("rank", "head", "temperature", "epochs", "rate", "decay")
        }

    def fit(self, training: TrainingSet, *, seed: int) -> Self:
        if self.rank < 1:
            raise MethodError(f"rank must be at least 1, found {self.rank}")
        head, means = Head(self.head, self.temperature), global_means(training.quality)
        features = _features(training.queries)
        rank = min(self.rank, len(means))

        def start(rng: np.random.Generator) -> Weights:
            queries = rng.normal(0, 0.3 / np.sqrt(features.shape[1]), (features.shape[1], rank))
            experts = rng.normal(0, 1 / np.sqrt(rank), (rank, len(means)))
            return {"queries": queries, "experts": experts, "bias": head.first_bias(means)}

        def forward(weights: Mapping[str, Any], x: Any, training: bool) -> Any:
            return x @ weights["queries"] @ weights["experts"] + weights["bias"]

        learnt, scale = descend(
            start,
            forward,
            head,
            features,
            training.quality,
            means,
            seed=seed,
            rate=self.rate,
            decay=self.decay,
            epochs=self.epochs,
        )
        self._take({**learnt, "means": means, "scale": np.array([scale])})
        return self

    def score(self, queries: QueryBatch) -> FloatArray:
        logits = _features(queries) @ self.queries_ @ self.experts_ + self.bias_
        deviations = Head(self.head, self.temperature).deviations(logits, self.means_)
        scores: FloatArray = np.clip(self.means_ + self.scale_ * deviations, 0.0, 1.0)
        return scores

    def arrays(self) -> dict[str, FloatArray]:
        return {name: getattr(self, f"{name}_") for name in NAMES}

    @classmethod
    def restore(cls, params: Mapping[str, Any], arrays: Mapping[str, FloatArray]) -> Self:
        restored = cls(**params)
        restored._take(dict(zip(NAMES, take(arrays, *NAMES), strict=True)))
        return restored

    def _take(self, arrays: Mapping[str, FloatArray]) -> None:
        for name in NAMES:
            setattr(self, f"{name}_", arrays[name])

    queries_: FloatArray  # [dimension, rank]
    experts_: FloatArray  # [rank, experts]
    bias_: FloatArray  # [experts]
    means_: FloatArray  # [experts]
    scale_: FloatArray  # [1]


def _features(queries: QueryBatch) -> FloatArray:
    scaled: FloatArray = (queries.embeddings * np.sqrt(queries.embeddings.shape[1])).astype(np.float32)
    return scaled
