"""The contract of a routing method: fit on outcomes, score a batch of queries, return its arrays.

A user's own method is one file that satisfies this Protocol, registered through the
entry-point group `to_router.methods`; `train`, `compare` and serving then find it by name.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

from router.core import FloatArray, IntArray, QueryBatch, TrainingSet


@runtime_checkable
class RoutingMethod(Protocol):
    """Predicts the quality of every expert of the pool for a query.

    The constructor stores its keyword arguments and does nothing else; `params` returns
    them as JSON values. Learned attributes end in `_`. A second `fit` replaces the first.
    """

    name: ClassVar[str]

    @property
    def params(self) -> dict[str, Any]:
        """The constructor's arguments, as JSON values."""
        ...

    def fit(self, training: TrainingSet, *, seed: int) -> Self:
        """Learn from outcomes; equal seeds and data give equal arrays.

        Raises:
            OutcomesError: too few rows, or an expert without any outcome.
        """
        ...

    def score(self, queries: QueryBatch) -> FloatArray:
        """Predicted quality, [n, experts] in [0, 1], finite. Pure; rows do not depend on each other."""
        ...

    def arrays(self) -> dict[str, FloatArray]:
        """The learned attributes, as named arrays for safetensors."""
        ...

    @classmethod
    def restore(cls, params: Mapping[str, Any], arrays: Mapping[str, FloatArray]) -> Self:
        """The fitted method again, from `params` and `arrays`.

        Raises:
            WeightsError: names or shapes do not fit, or a value is not finite.
        """
        ...


@runtime_checkable
class CrosswiseMethod(RoutingMethod, Protocol):
    """A method that cross-validates inside its own fit, and can return the out-of-fold scores."""

    def fit_crosswise(self, training: TrainingSet, folds: IntArray, *, seed: int) -> FloatArray:
        """Fit on everything; returns each row's score by members that never saw its fold, [n, experts]."""
        ...
