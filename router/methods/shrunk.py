"""A fitted method, pulled towards what is expected of the experts without it.

Stacking (Wolpert 1992) of two: least squares on out-of-fold scores weighs the differences between the
experts that a method has learnt against those that were expected. A method that few outcomes made predicts
little out of fold, so that the expectation weighs much; with many outcomes it vanishes.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np

from router.core import BoolArray, FloatArray, QueryBatch, TrainingSet
from router.errors import MethodError, WeightsError
from router.methods.contract import RoutingMethod
from router.methods.prior import PriorRouter
from router.methods.registry import make, method_class

STRENGTH = 30.0
"""The expectation counts as if, beside the outcomes, this many queries had shown it to be right."""


class Target(NamedTuple):
    """What is expected of the experts, to which a method is pulled."""

    prior: PriorRouter
    """Joined with all outcomes."""
    apart: FloatArray
    """[n, experts] its scores of the outcomes' queries, joined with outcomes of other folds alone."""


class ShrunkRouter:
    """A method and its shrinkage target.

    Args:
        base: the method, `{"name": …, "params": {…}}`.
        kinds: names of the target's kinds, for people.
    """

    name: ClassVar[str] = "shrunk"

    def __init__(self, *, base: Mapping[str, Any] | None = None, kinds: list[str] | None = None) -> None:
        self.base = base
        self.kinds = kinds

    @property
    def params(self) -> dict[str, Any]:
        return {"base": None if self.base is None else dict(self.base), "kinds": self.kinds}

    def fit(self, training: TrainingSet, *, seed: int) -> Self:
        """Fit both on the same outcomes, in equal parts: here the target has the tasks as its kinds."""
        name, given = self._named()
        fitted = make(name, given).fit(training, seed=seed)
        return self.pull(fitted, PriorRouter(kinds=self.kinds).fit(training, seed=seed), 0.5)

    def pull(self, fitted: RoutingMethod, prior: PriorRouter, weight: float) -> Self:
        """Take a fitted method, its target, and the target's weight."""
        self.fitted_, self.prior_, self.weight_ = fitted, prior, np.array([weight])
        return self

    def score(self, queries: QueryBatch) -> FloatArray:
        return pulled(self.fitted_.score(queries), self.prior_.score(queries), float(self.weight_[0]))

    def arrays(self) -> dict[str, FloatArray]:
        found: dict[str, FloatArray] = {"weight": self.weight_}
        for part, method in (("base", self.fitted_), ("prior", self.prior_)):
            found |= {f"{part}.{name}": value for name, value in method.arrays().items()}
        return found

    @classmethod
    def restore(cls, params: Mapping[str, Any], arrays: Mapping[str, FloatArray]) -> Self:
        restored = cls(**params)
        parts: dict[str, dict[str, FloatArray]] = {"base": {}, "prior": {}}
        for name, value in arrays.items():
            part, _, rest = name.partition(".")
            if name != "weight" and part in parts:
                parts[part][rest] = value
        weight = arrays.get("weight")
        if weight is None or weight.shape != (1,) or len(arrays) != 1 + sum(map(len, parts.values())):
            raise WeightsError(
                f"a shrunk method needs the arrays weight, base.… and prior.…, found {', '.join(arrays)}"
            )
        name, given = restored._named()
        return restored.pull(
            method_class(name).restore(given, parts["base"]),
            PriorRouter.restore({"kinds": restored.kinds}, parts["prior"]),
            float(weight[0]),
        )

    def _named(self) -> tuple[str, dict[str, Any]]:
        base = self.base or {"name": "knn"}
        if not isinstance(base.get("name"), str):
            raise MethodError(f"base must be {{name, params}}, found {base!r}")
        return base["name"], dict(base.get("params") or {})


def pulled(scores: FloatArray, expected: FloatArray, weight: float) -> FloatArray:
    """Scores whose differences between experts are those of both, [n, columns] in [0, 1].

    Args:
        scores: [n, columns], the experts' first; the columns of plans stay.
        expected: [n, experts].
        weight: of the expected differences.
    """
    moved, experts = scores.astype(np.float64), expected.shape[1]
    moved[:, :experts] += weight * (_contrast(expected) - _contrast(scores[:, :experts]))
    whole: FloatArray = np.clip(moved, 0.0, 1.0)
    return whole


def target_weight(scores: FloatArray, expected: FloatArray, quality: FloatArray) -> float:
    """The weight of the expected differences by least squares, in [0, 1].

    Args:
        scores: [n, experts], out of fold.
        expected: [n, experts], out of fold.
        quality: [n, experts]; NaN where not measured.
    """
    seen = np.isfinite(quality)
    rows = seen.sum(axis=1) >= 2
    learnt, prior, found = (_contrast(values[rows], seen[rows]) for values in (scores, expected, quality))
    apart = prior - learnt
    spread = float((apart**2).sum())
    if not spread > 0:
        return 1.0
    added = STRENGTH * spread / len(apart)
    return float(np.clip(((apart * (found - learnt)).sum() + added) / (spread + added), 0.0, 1.0))


def _contrast(values: FloatArray, seen: BoolArray | None = None) -> FloatArray:
    """Differences from the mean over the experts, or over those that were measured, [n, experts]."""
    if seen is None:
        seen = np.ones(values.shape, dtype=bool)
    counted = np.where(seen, values, 0.0)
    mean = counted.sum(axis=1, keepdims=True) / seen.sum(axis=1, keepdims=True)
    found: FloatArray = np.where(seen, counted - mean, 0.0)
    return found
