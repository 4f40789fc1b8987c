"""The hull of cost–quality points, compared with cases that can be worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.methods.hull import area, hull

POINTS = st.lists(st.tuples(st.floats(0, 10, width=16), st.floats(0, 1, width=16)), min_size=1, max_size=12)


def test_a_hull_leaves_out_points_below_a_mixture_or_no_better() -> None:
    costs, quality = np.array([1.0, 2.0, 3.0, 4.0, 5.0]), np.array([0.2, 0.25, 0.6, 0.5, 0.7])
    x, y = hull(costs, quality)

    assert x.tolist() == [1.0, 3.0, 5.0]
    assert y.tolist() == [0.2, 0.6, 0.7]


@given(POINTS)
def test_a_hull_rises_bends_down_and_covers_every_point(points: list[tuple[float, float]]) -> None:
    costs, quality = np.array([p[0] for p in points]), np.array([p[1] for p in points])
    x, y = hull(costs, quality)
    slopes = np.diff(y) / np.diff(x)

    assert (np.diff(x) > 0).all()
    assert (np.diff(y) > 0).all()
    assert (np.diff(slopes) <= 1e-9 * np.abs(slopes[1:], where=True) + 1e-9).all() or len(slopes) < 2
    assert (np.interp(costs, x, y) >= quality - 1e-9).all()


def test_aiq_is_the_mean_height_over_the_range() -> None:
    costs, quality = np.array([0.0, 1.0]), np.array([0.4, 0.8])

    assert area(costs, quality, 0.0, 1.0) == pytest.approx(0.6)
    assert area(costs, quality, 0.0, 2.0) == pytest.approx((0.6 + 0.8) / 2)
    assert area(costs, quality, 0.5, 1.0) == pytest.approx(0.7)
    assert area(np.array([1.0, 1.0]), np.array([0.4, 0.8]), 1.0, 1.0) == 0.8
