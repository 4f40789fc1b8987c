"""Gaps at random: one outcome per query is left, and the value of choices is still found."""

import numpy as np

from experiments.missing_outcomes import estimated, one_each


def test_one_outcome_of_each_query_is_left() -> None:
    seen = one_each((500, 4), np.random.default_rng(0))

    assert (seen.sum(axis=1) == 1).all()
    assert seen.sum(axis=0).min() > 80


def test_a_value_is_found_from_one_outcome_a_query() -> None:
    rng = np.random.default_rng(0)
    quality = (rng.random((3000, 4)) < [0.2, 0.4, 0.6, 0.8]).astype(float)
    seen = one_each((3000, 4), rng)
    hidden = np.where(seen, quality, np.nan)

    found = estimated(hidden, np.zeros((3000, 0)), seen, np.full(3000, 3))

    assert found is not None
    assert found.low <= quality[:, 3].mean() <= found.high
    assert found.high - found.low < 0.12


def test_too_few_outcomes_give_no_value() -> None:
    rng = np.random.default_rng(0)
    quality = rng.random((50, 4))

    assert estimated(quality, np.zeros((50, 0)), one_each((50, 4), rng), np.zeros(50, dtype=int)) is None
