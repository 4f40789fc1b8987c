"""Train small networks by gradient descent with early stopping, with torch; they score with numpy.

Two heads: the probability that each expert is right, and the TO-Router paper's soft label over the pool
(arXiv 2408.12320). The number of epochs and the scale of the deviations are chosen on held-out rows, then
the network is trained on all rows.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from router.core import FloatArray, IntArray
from router.errors import MethodError

HEADS = ("probability", "soft_label")
HELD_OUT = 0.15
"""Share of the rows that early stopping watches."""
PATIENCE = 3
"""Epochs without a better held-out loss before it stops."""
BATCH = 64
MOST_SCALE = 5.0
Weights = dict[str, FloatArray]
Forward = Callable[[Mapping[str, Any], Any, bool], Any]
"""(weights, features [n, d], whether it is being trained) → logits [n, experts], all torch tensors."""


@dataclass(frozen=True, slots=True)
class Head:
    """How logits become a loss, and how they become deviations from the experts' means.

    Args:
        kind: `probability` or `soft_label`.
        temperature: by which the soft label multiplies qualities before its softmax.

    Raises:
        MethodError: another kind, or a temperature that is not above 0.
    """

    kind: str
    temperature: float = 10.0

    def __post_init__(self) -> None:
        if self.kind not in HEADS:
            raise MethodError(f"head must be one of {', '.join(HEADS)}, found {self.kind!r}")
        if not self.temperature > 0:
            raise MethodError(f"temperature must be above 0, found {self.temperature}")

    def loss(self, logits: Any, quality: Any) -> Any:
        """Mean loss of torch tensors; `quality` is NaN where nothing was measured.

        A soft label covers the measured experts only.
        """
        import torch

        seen = torch.isfinite(quality)
        known = torch.where(seen, quality, torch.zeros_like(quality))
        if self.kind == "probability":
            each = torch.nn.functional.binary_cross_entropy_with_logits(logits, known, reduction="none")
            return (each * seen).sum() / seen.sum().clamp(min=1)
        far = torch.full_like(logits, -1e4)
        label = torch.softmax(torch.where(seen, self.temperature * known, far), dim=1)
        predicted = torch.log_softmax(torch.where(seen, logits, far), dim=1)
        return -(label * predicted).sum(dim=1)[seen.any(dim=1)].mean()

    def first_bias(self, means: FloatArray) -> FloatArray:
        """The bias with which an untrained network predicts the means, [experts]."""
        if self.kind == "soft_label":
            flat: FloatArray = self.temperature * (means - means.mean())
            return flat
        held = np.clip(means, 0.01, 0.99)
        bias: FloatArray = np.log(held / (1 - held))
        return bias

    def deviations(self, logits: FloatArray, means: FloatArray) -> FloatArray:
        """Deviations of the predictions from the means, [n, experts], in units of quality."""
        if self.kind == "probability":
            above: FloatArray = 1 / (1 + np.exp(-np.clip(logits, -30, 30))) - means
            return above
        contrast = (logits - logits.mean(axis=1, keepdims=True)) / self.temperature
        apart: FloatArray = contrast - (means - means.mean())
        return apart


def scale_of(deviations: FloatArray, quality: FloatArray, means: FloatArray, *, most: float) -> float:
    """The factor for deviations that fits held-out rows best, from 0 to `most`.

    Least squares; below 1 it shrinks towards the means.
    """
    seen = np.isfinite(quality)
    predicted, true = deviations[seen], (quality - means)[seen]
    power = float(predicted @ predicted)
    return float(np.clip(predicted @ true / power, 0.0, most)) if power > 0 else 0.0


def descend(
    start: Callable[[np.random.Generator], Weights],
    forward: Forward,
    head: Head,
    features: FloatArray,
    quality: FloatArray,
    means: FloatArray,
    *,
    seed: int,
    rate: float,
    decay: float,
    epochs: int,
) -> tuple[Weights, float]:
    """Weights learnt from all rows, and the scale of their deviations that fits held-out rows.

    Args:
        start: makes the first weights.
        forward: (weights, features, training) → logits.
        head: the loss, and the deviations of the logits.
        features: [n, dimension].
        quality: [n, experts], NaN where not measured.
        means: [experts] of the training data.
        seed: of the weights, the held-out rows and the order of the batches.
        rate: AdamW's learning rate (Loshchilov and Hutter, ICLR 2019).
        decay: AdamW's weight decay.
        epochs: maximum number.
    """
    import torch

    if epochs < 1:
        raise MethodError(f"epochs must be at least 1, found {epochs}")
    inside, outside = held_out(len(features), seed)
    x = torch.from_numpy(np.ascontiguousarray(features, dtype=np.float32))
    y = torch.from_numpy(np.ascontiguousarray(quality, dtype=np.float32))

    def run(rows: IntArray, most: int, watch: IntArray | None) -> tuple[Weights, int]:
        made = start(np.random.default_rng(seed))
        weights = {
            name: torch.tensor(value, dtype=torch.float32, requires_grad=True) for name, value in made.items()
        }
        optimiser = torch.optim.AdamW(list(weights.values()), lr=rate, weight_decay=decay)
        order = np.random.default_rng(seed + 1)
        best, best_loss, kept = 0, np.inf, _copied(weights)
        for epoch in range(1, most + 1):
            shuffled = rows[order.permutation(len(rows))]
            for at in range(0, len(shuffled), BATCH):
                part = torch.from_numpy(shuffled[at : at + BATCH])
                optimiser.zero_grad()
                head.loss(forward(weights, x[part], True), y[part]).backward()
                optimiser.step()
            if watch is None:
                continue
            with torch.no_grad():
                part = torch.from_numpy(watch)
                loss = float(head.loss(forward(weights, x[part], False), y[part]))
            if loss < best_loss:
                best, best_loss, kept = epoch, loss, _copied(weights)
            elif epoch - best >= PATIENCE:
                break
        return (_copied(weights), most) if watch is None else (kept, best)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        early, best = run(inside, epochs, outside)
        with torch.no_grad():
            tensors = {name: torch.from_numpy(value) for name, value in early.items()}
            logits = forward(tensors, x[torch.from_numpy(outside)], False).numpy().astype(np.float64)
        deviations = head.deviations(logits, means)
        most = 1.0 if head.kind == "probability" else MOST_SCALE
        scale = scale_of(deviations, quality[outside], means, most=most)
        torch.manual_seed(seed)
        whole, _ = run(np.arange(len(features)), max(best, 1), None)
    return whole, scale


def held_out(n: int, seed: int) -> tuple[IntArray, IntArray]:
    """Rows to learn from, and rows that early stopping watches."""
    order = np.random.default_rng(seed).permutation(n)
    count = max(1, round(HELD_OUT * n))
    return np.sort(order[count:]), np.sort(order[:count])


def _copied(weights: Mapping[str, Any]) -> Weights:
    return {name: value.detach().numpy().copy() for name, value in weights.items()}
