"""Calibrate predicted quality: one isotonic curve, and a shift for each expert, stored as knots.

Pool-adjacent-violators (Ayer et al. 1955), as Zadrozny and Elkan (KDD 2002) use it for probabilities.
All experts share the curve: a curve for each expert calibrates no better and adds its own noise to the
comparison of experts (docs/research-log.md). Applied by interpolation between knots, in numpy.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from router.core import FloatArray
from router.errors import WeightsError
from router.methods.shrink import PRIOR_STRENGTH

KNOTS = 32


@dataclass(frozen=True)
class Calibration:
    """For each expert a non-decreasing curve from raw score to quality."""

    raw: FloatArray  # [experts, KNOTS] non-decreasing
    quality: FloatArray  # [experts, KNOTS] non-decreasing, in [0, 1]

    @classmethod
    def fit(cls, scores: FloatArray, quality: FloatArray) -> Self:
        """Learn from scores that were made without seeing these outcomes.

        Args:
            scores: [n, experts] out-of-fold.
            quality: [n, experts], NaN where not measured.
        """
        from sklearn.isotonic import IsotonicRegression

        seen = np.isfinite(quality)
        curve = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(
            scores[seen], quality[seen]
        )
        raw = np.quantile(scores[seen], np.linspace(0, 1, KNOTS))
        shared = np.maximum.accumulate(curve.predict(raw))
        residual = np.where(seen, quality - np.interp(scores, raw, shared), 0.0)
        shift = residual.sum(axis=0) / (seen.sum(axis=0) + PRIOR_STRENGTH)
        fitted = np.clip(shared + shift[:, None], 0.0, 1.0)
        return cls(np.tile(raw, (scores.shape[1], 1)), fitted)

    def apply(self, scores: FloatArray) -> FloatArray:
        """Calibrated scores, [n, experts]."""
        columns = [
            np.interp(scores[:, column], self.raw[column], self.quality[column])
            for column in range(scores.shape[1])
        ]
        return np.stack(columns, axis=1)

    def with_expert(self) -> Self:
        """The same with one more expert, whose scores are not changed."""
        same = np.linspace(0.0, 1.0, self.raw.shape[1])
        return type(self)(np.vstack([self.raw, same]), np.vstack([self.quality, same]))

    def to_json(self) -> dict[str, Any]:
        """The facts for the manifest."""
        return {"kind": "isotonic", "knots": KNOTS}

    def arrays(self) -> dict[str, FloatArray]:
        """The knots, as named arrays for safetensors."""
        return {"raw": self.raw, "quality": self.quality}

    @classmethod
    def restore(cls, arrays: Mapping[str, FloatArray]) -> Self:
        """The calibration again, from its arrays.

        Raises:
            WeightsError: names or shapes of the arrays do not fit.
        """
        if set(arrays) != {"raw", "quality"} or arrays["raw"].shape != arrays["quality"].shape:
            raise WeightsError("the calibration needs two arrays of one shape, `raw` and `quality`")
        return cls(arrays["raw"], arrays["quality"])
