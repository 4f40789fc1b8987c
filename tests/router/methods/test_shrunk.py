"""A method is pulled to what is expected of the experts as far as its own scores are uncertain."""

import numpy as np

from router.methods.shrunk import pulled, target_weight

RNG = np.random.default_rng(0)
TRUE = RNG.random((400, 3))
QUALITY = (RNG.random((400, 3)) < TRUE).astype(float)


def test_scores_that_know_nothing_give_way() -> None:
    noise = RNG.random((400, 3))

    assert target_weight(noise, TRUE, QUALITY) > 0.8


def test_scores_that_know_stay() -> None:
    assert target_weight(TRUE, RNG.random((400, 3)), QUALITY) < 0.2


def test_few_outcomes_leave_the_target_in_effect() -> None:
    few, many = (
        target_weight(TRUE[:count], np.full((count, 3), (0.2, 0.5, 0.8)), QUALITY[:count])
        for count in (5, 400)
    )

    assert few > many


def test_outcomes_with_gaps_are_compared_where_they_are() -> None:
    holed = QUALITY.copy()
    holed[::2, 1] = np.nan

    assert target_weight(TRUE, RNG.random((400, 3)), holed) < 0.2
    assert target_weight(TRUE, 1 - TRUE, np.full((400, 3), np.nan)) == 1


def test_the_columns_of_plans_and_the_level_stay() -> None:
    scores = np.full((2, 4), (0.4, 0.5, 0.6, 0.9))
    expected = np.full((2, 3), (0.6, 0.5, 0.4))

    moved = pulled(scores, expected, 0.5)

    np.testing.assert_allclose(moved, np.full((2, 4), (0.5, 0.5, 0.5, 0.9)))
