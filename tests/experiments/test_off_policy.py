"""The simulation of logs: its probabilities are those of its actions, its truth is the population's mean."""

import numpy as np
import pytest

from experiments.off_policy import IN_EFFECT, Population, simulate
from router.core import Exploration
from router.learning.estimators import Obstacle


def world() -> Population:
    rng = np.random.default_rng(0)
    kind = rng.integers(2, size=300)
    quality = np.where(kind[:, None] == 0, [1.0, 0.0, 1.0], [0.0, 1.0, 1.0]) * (rng.random((300, 3)) < 0.8)
    scores = np.tile([0.5, 0.5, 0.52], (300, 1))
    choices = {IN_EFFECT: np.full(300, 2), "other": kind}
    return Population(quality, np.column_stack([kind, 1 - kind]).astype(float), scores, choices)


def test_actions_follow_the_logged_probabilities() -> None:
    made = world()
    propensities = made.propensities(Exploration(0.3))

    rows, evidence = made.log(propensities, 20_000, np.random.default_rng(1))

    assert propensities[0] == pytest.approx([0.1, 0.1, 0.8])
    assert np.bincount(evidence.actions) / 20_000 == pytest.approx([0.1, 0.1, 0.8], abs=0.01)
    assert np.array_equal(evidence.rewards, made.quality[rows, evidence.actions])


def test_estimates_of_a_simulated_population_cover_its_mean() -> None:
    tallies = simulate(world(), Exploration(0.3), logs=20, decisions=2000)

    other = tallies["other"]
    assert sum(one.low <= other.truth <= one.high for one in other.robust) >= 17
    assert other.cells().count("|") == 8


def test_logs_without_exploration_are_not_judged() -> None:
    tallies = simulate(world(), Exploration(0.0), logs=2, decisions=200)

    assert {reason for tally in tallies.values() for reason in tally.obstacles} == {Obstacle.NO_EXPLORATION}
