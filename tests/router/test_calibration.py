"""Calibrated scores mean what they say, and come back from disk."""

import numpy as np
import pytest

from router.calibration import KNOTS, Calibration
from router.errors import WeightsError


def overconfident() -> tuple[np.ndarray, np.ndarray]:
    """Scores of two experts that are twice too far from one half."""
    rng = np.random.default_rng(0)
    scores = rng.uniform(0, 1, (4000, 2))
    quality = (rng.uniform(0, 1, scores.shape) < 0.25 + 0.5 * scores).astype(float)
    return scores, quality


def test_calibrated_scores_are_the_measured_quality() -> None:
    scores, quality = overconfident()
    calibrated = Calibration.fit(scores, quality).apply(scores)

    for low in (0.0, 0.8):
        inside = (scores >= low) & (scores < low + 0.2)
        assert calibrated[inside].mean() == pytest.approx(quality[inside].mean(), abs=0.03)


def test_a_new_expert_keeps_its_scores() -> None:
    scores, quality = overconfident()
    grown = Calibration.fit(scores, quality).with_expert()
    new = np.column_stack([scores[:5], [0.0, 0.2, 0.5, 0.9, 1.0]])

    np.testing.assert_allclose(grown.apply(new)[:, 2], new[:, 2])


def test_a_calibration_comes_back_from_its_arrays() -> None:
    scores, quality = overconfident()
    fitted = Calibration.fit(scores, quality)
    restored = Calibration.restore(fitted.arrays())

    assert fitted.raw.shape == (2, KNOTS)
    np.testing.assert_array_equal(restored.apply(scores), fitted.apply(scores))
    with pytest.raises(WeightsError, match="two arrays of one shape"):
        Calibration.restore({"raw": fitted.raw})
