"""Estimates of a policy's value: right on average, honest in their intervals, silent without evidence."""

import numpy as np
import pytest

from router.core import FloatArray, IntArray
from router.errors import InputError
from router.learning.estimators import Estimate, Interval, Obstacle, estimate, mean_of
from router.learning.evidence import OUTSIDE, Evidence
from router.learning.reward_model import FOLDS, cross_fitted
from tests.router.learning.logs import World

WORLD = World.of(2000)
STATIC = np.full(2000, 2)
"""The policy in effect: always the third candidate."""


def judged(evidence: Evidence, choices: IntArray, predicted: FloatArray | None = None) -> Estimate:
    return estimate(evidence, choices, cross_fitted(evidence) if predicted is None else predicted)


def known(interval: Interval | None) -> Interval:
    assert interval is not None
    return interval


def test_intervals_cover_and_doubly_robust_is_narrower() -> None:
    truth, n = WORLD.value(WORLD.best), 60
    covered = {"dr": 0, "ips": 0}
    values, widths = [], {"dr": 0.0, "ips": 0.0}
    for seed in range(n):
        found = judged(WORLD.log(STATIC, share=0.3, seed=seed), WORLD.best)
        for name, one in (("dr", known(found.doubly_robust)), ("ips", known(found.inverse_propensity))):
            covered[name] += one.low <= truth <= one.high
            widths[name] += one.high - one.low
        values.append(known(found.doubly_robust).value)

    assert covered["dr"] >= 0.9 * n
    assert covered["ips"] >= 0.9 * n
    assert widths["dr"] < 0.9 * widths["ips"]
    assert abs(np.mean(values) - truth) < 4 * np.std(values) / np.sqrt(n)


def test_a_wrong_reward_model_does_not_bias_the_estimate() -> None:
    truth = WORLD.value(WORLD.best)
    wrong = np.tile([0.1, 0.2, 0.9], (2000, 1))
    values = [
        known(judged(WORLD.log(STATIC, share=0.3, seed=seed), WORLD.best, wrong).doubly_robust).value
        for seed in range(60)
    ]

    assert abs(np.mean(values) - truth) < 4 * np.std(values) / np.sqrt(60)


def test_the_gain_over_the_policy_in_effect_is_certain_where_it_is_large() -> None:
    found = judged(WORLD.log(STATIC, share=0.3, seed=0), WORLD.best)

    gain = known(found.gain)
    assert gain.low > 0.1
    assert gain.low < WORLD.value(WORLD.best) - WORLD.value(STATIC) < gain.high


def test_the_policy_in_effect_gains_nothing_over_itself() -> None:
    found = judged(WORLD.log(WORLD.best, share=0.2, seed=0), WORLD.best)

    assert known(found.gain) == Interval(0.0, 0.0, 0.0)


def test_a_policy_that_differs_little_has_a_narrow_gain() -> None:
    choices = WORLD.best.copy()
    choices[::20] = 2

    found = judged(WORLD.log(WORLD.best, share=0.2, seed=0), choices)

    gain, value = known(found.gain), known(found.doubly_robust)
    truth = WORLD.value(choices) - WORLD.value(WORLD.best)
    assert gain.low <= truth <= gain.high
    assert gain.high - gain.low < value.high - value.low


def test_a_log_without_exploration_shows_nothing() -> None:
    found = judged(WORLD.log(STATIC, share=0.0, seed=0), STATIC)

    assert (found.obstacle, found.doubly_robust) == (Obstacle.NO_EXPLORATION, None)


def test_a_log_without_decisions_shows_nothing() -> None:
    evidence = WORLD.log(STATIC, share=0.1, seed=0).take(np.arange(0))

    assert judged(evidence, STATIC[:0]).obstacle is Obstacle.NO_REWARD


def test_more_than_a_tenth_unsupported_is_not_judged() -> None:
    choices = WORLD.best.copy()
    choices[:201] = OUTSIDE

    found = judged(WORLD.log(STATIC, share=0.3, seed=0), choices)

    assert (found.obstacle, found.doubly_robust) == (Obstacle.UNSUPPORTED, None)
    assert found.unsupported == pytest.approx(0.1005)


def test_unsupported_decisions_count_as_zero_in_the_lower_bound() -> None:
    evidence, choices = WORLD.log(STATIC, share=0.3, seed=0), WORLD.best.copy()
    choices[:100] = OUTSIDE

    part = known(judged(evidence.take(np.arange(100, 2000)), WORLD.best[100:]).doubly_robust)
    found = judged(evidence, choices, cross_fitted(evidence))

    assert found.unsupported == pytest.approx(0.05)
    assert known(found.doubly_robust).low == pytest.approx(0.95 * part.low, abs=0.01)
    assert known(found.doubly_robust).high == pytest.approx(0.95 * part.high + 0.05, abs=0.01)


def test_few_effective_decisions_are_not_judged() -> None:
    found = judged(WORLD.log(STATIC, share=0.02, seed=0), WORLD.best)

    assert found.obstacle is Obstacle.FEW
    assert found.effective_n < 100


def test_turns_of_a_conversation_count_as_one() -> None:
    alone = judged(WORLD.log(STATIC, share=0.3, seed=0), WORLD.best)
    in_turns = judged(WORLD.log(STATIC, share=0.3, seed=0, turns=5), WORLD.best)

    assert in_turns.effective_n < 0.4 * alone.effective_n


def test_weights_undo_an_uneven_sample() -> None:
    evidence = WORLD.log(STATIC, share=0.5, seed=0)
    kind = WORLD.best
    kept = np.flatnonzero((kind == 0) | (np.arange(2000) % 4 == 0))
    weights = np.where(kind[kept] == 0, 1.0, 4.0)
    part = evidence.take(kept)
    weighted = Evidence(part.actions, part.propensities, part.rewards, part.units, part.features, weights)

    found = known(judged(weighted, kind[kept]).doubly_robust)

    assert found.low < WORLD.value(WORLD.best) < found.high


def test_the_mean_of_the_log_has_its_interval() -> None:
    found = mean_of(WORLD.log(STATIC, share=0.0, seed=0))

    assert found.low < 0.6 < found.high
    assert found.high - found.low < 0.06


def test_no_decision_is_predicted_by_its_own_conversation() -> None:
    evidence = WORLD.log(STATIC, share=0.3, seed=0, turns=4)
    changed = evidence.rewards.copy()
    changed[8:12] = 1 - changed[8:12]

    before, after = cross_fitted(evidence), cross_fitted(evidence.with_rewards(changed))

    assert np.array_equal(before[8:12], after[8:12])
    assert not np.array_equal(before, after)
    assert FOLDS > 1


def test_a_log_without_features_has_each_candidates_mean() -> None:
    evidence = WORLD.log(STATIC, share=0.5, seed=0)
    bare = Evidence(
        evidence.actions,
        evidence.propensities,
        evidence.rewards,
        evidence.units,
        np.zeros((2000, 0)),
        evidence.weights,
    )

    predicted = cross_fitted(bare)

    assert predicted.mean(axis=0) == pytest.approx(WORLD.quality.mean(axis=0), abs=0.06)


def test_impossible_evidence_is_bad_input() -> None:
    one = np.ones(1)
    features, units, action = np.zeros((1, 0)), np.zeros(1, dtype=int), np.zeros(1, dtype=int)
    with pytest.raises(InputError, match="sum to 1"):
        Evidence(action, np.array([[0.5, 0.4]]), one, units, features, one)
    with pytest.raises(InputError, match="above 0"):
        Evidence(action, np.array([[0.0, 1.0]]), one, units, features, one)
    with pytest.raises(InputError, match="one row for each"):
        Evidence(action, np.array([[1.0, 0.0]]), np.ones(2), units, features, one)
