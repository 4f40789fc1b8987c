"""Means from few observations are pulled towards the pool's."""

import numpy as np
import pytest

from router.core import QueryBatch, TrainingSet
from router.errors import OutcomesError
from router.methods.shrink import filled, global_means


def test_few_observations_are_pulled_towards_the_pools_mean() -> None:
    quality = np.full((400, 2), np.nan)
    quality[:, 0] = 0.5
    quality[:4, 1] = 1.0
    many, few = global_means(quality)

    assert many == pytest.approx(0.5, abs=0.01)
    assert 0.7 < few < 0.8  # as many observations of the prior as of its own


def test_an_expert_without_outcomes_is_named_by_its_count() -> None:
    with pytest.raises(OutcomesError, match="found per column of the pool: 2, 0"):
        global_means(np.array([[0.5, np.nan], [0.5, np.nan]]))


def test_missing_outcomes_are_filled_with_the_experts_mean() -> None:
    quality = np.array([[0.2, 1.0], [np.nan, 1.0]])
    training = TrainingSet(QueryBatch(("a", "b"), np.eye(2)), quality)

    assert filled(training)[1, 0] == global_means(quality)[0]
    assert filled(training)[0, 0] == 0.2
