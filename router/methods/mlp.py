"""A network with one hidden layer: the TO-Router paper's MLP (arXiv 2408.12320), with early stopping.

Trained with torch, scored with numpy.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from router.core import FloatArray, QueryBatch, TrainingSet
from router.errors import MethodError
from router.methods.arrays import take
from router.methods.descent import Head, Weights, descend
from router.methods.features import surface
from router.methods.shrink import global_means

DROPOUT = 0.2
NAMES = ("first", "first_bias", "second", "second_bias", "means", "scale")


class MlpRouter:
    """Embedding and surface → hidden layer → an output for each expert.

    Args:
        head: `probability` (cross-entropy for each expert) or `soft_label` (the paper's softmax).
        temperature: of the soft label; it multiplies the qualities.
        hidden: units of the hidden layer.
        epochs: maximum number; early stopping may end before.
        rate: AdamW's learning rate.
        decay: AdamW's weight decay.
    """

    name: ClassVar[str] = "mlp"

    def __init__(
        self,
        *,
        head: str = "probability",
        temperature: float = 10.0,
        hidden: int = 128,
        epochs: int = 40,
        rate: float = 1e-3,
        decay: float = 0.1,
    ) -> None:
        self.head = head
        self.temperature = temperature
        self.hidden = hidden
        self.epochs = epochs
        self.rate = rate
        self.decay = decay

    @property
    def params(self) -> dict[str, Any]:
        names = ("head", "temperature", "hidden", "epochs", "rate", "decay")
        return {name: getattr(self, name) for name in names}

    def fit(self, training: TrainingSet, *, seed: int) -> Self:
        if self.hidden < 1:
            raise MethodError(f"hidden must be at least 1, found {self.hidden}")
        head = Head(self.head, self.temperature)
        features, means = _features(training.queries), global_means(training.quality)

        def start(rng: np.random.Generator) -> Weights:
            width = features.shape[1]
            first = rng.normal(0, np.sqrt(2 / width), (width, self.hidden))  # He et al. 2015
            second = rng.normal(0, 0.1 / np.sqrt(self.hidden), (self.hidden, len(means)))
            bias: FloatArray = np.zeros(self.hidden)
            return dict(zip(NAMES, (first, bias, second, head.first_bias(means)), strict=False))

        def forward(weights: Mapping[str, Any], x: Any, training: bool) -> Any:
            import torch

            near = torch.relu(x @ weights["first"] + weights["first_bias"])
            near = torch.nn.functional.dropout(near, DROPOUT, training)
            return near @ weights["second"] + weights["second_bias"]

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
        near = np.maximum(_features(queries) @ self.first_ + self.first_bias_, 0.0)
        logits = near @ self.second_ + self.second_bias_
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

    first_: FloatArray  # [features, hidden]
    first_bias_: FloatArray  # [hidden]
    second_: FloatArray  # [hidden, experts]
    second_bias_: FloatArray  # [experts]
    means_: FloatArray  # [experts]
    scale_: FloatArray  # [1]


def _features(queries: QueryBatch) -> FloatArray:
    """Embedding and surface, [n, dimension + 9], each around 1 in size."""
    scaled = queries.embeddings * np.sqrt(queries.embeddings.shape[1])
    features: FloatArray = np.concatenate([scaled, surface(queries.texts)], axis=1).astype(np.float32)
    return features
