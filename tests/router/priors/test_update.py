"""Outcomes join the prior."""

import numpy as np
import pytest

from router.core import FloatArray
from router.methods.prior import PriorRouter
from router.priors.update import Belief, allocation, updated

KINDS, EXPERTS, DIMENSION = 2, 3, 8


@pytest.fixture
def belief() -> Belief:
    mean = np.array([[0.6, 0.6], [0.5, 0.5], [0.4, 0.4]])
    return Belief(mean, 0.02 * np.eye(EXPERTS * KINDS))


def outcomes(n: int, rates: FloatArray, seed: int = 0) -> tuple[FloatArray, FloatArray]:
    """(kinds [n, 2], quality [n, experts]) with success rates [kinds, experts]."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, KINDS, n)
    return np.eye(KINDS)[kinds], (rng.random((n, EXPERTS)) < rates[kinds]).astype(float)


RATES = np.array([[0.2, 0.5, 0.9], [0.6, 0.5, 0.4]])


def test_few_outcomes_move_little_and_many_decide(belief: Belief) -> None:
    few = belief.after(*outcomes(6, RATES))
    many = belief.after(*outcomes(2000, RATES))

    assert np.abs(few.mean - belief.mean).max() < np.abs(many.mean - belief.mean).max()
    np.testing.assert_allclose(many.mean, RATES.T, atol=0.08)


def test_outcomes_make_the_belief_narrower(belief: Belief) -> None:
    after = belief.after(*outcomes(100, RATES))

    assert (np.diag(after.covariance) < np.diag(belief.covariance)).all()


def test_missing_outcomes_are_no_outcomes(belief: Belief) -> None:
    members, quality = outcomes(100, RATES)
    quality[:, 2] = np.nan

    after = belief.after(members, quality)

    np.testing.assert_allclose(after.mean[2], belief.mean[2], atol=1e-6)


def test_no_outcome_leaves_the_belief(belief: Belief) -> None:
    after = belief.after(np.zeros((0, KINDS)), np.zeros((0, EXPERTS)))

    np.testing.assert_allclose(after.mean, belief.mean, atol=1e-6)


def test_a_specialist_is_found_though_the_prior_is_sure_of_little() -> None:
    sure = Belief(np.full((EXPERTS, KINDS), 0.02), 1e-4 * np.eye(EXPERTS * KINDS))
    specialists = np.array([[0.9, 0.0, 0.4], [0.0, 0.9, 0.4]])

    after = sure.after(*outcomes(200, specialists))

    np.testing.assert_allclose(after.mean, specialists.T, atol=0.1)


def test_a_prior_that_holds_is_moved_little_by_few_outcomes() -> None:
    right = Belief(RATES.T, 1e-4 * np.eye(EXPERTS * KINDS))

    after = right.after(*outcomes(60, RATES))

    np.testing.assert_allclose(after.mean, right.mean, atol=0.06)


def test_the_kinds_stay_when_expectations_move(belief: Belief) -> None:
    embeddings = np.random.default_rng(0).normal(size=(40, DIMENSION))
    method = PriorRouter().expect(embeddings, np.arange(40) % KINDS, belief.mean.T)

    after = updated(method, belief, embeddings, np.tile([0.0, 1.0, 0.0], (40, 1)))

    assert (after.means_.argmax(axis=1) == 1).all()
    np.testing.assert_allclose(after.membership(embeddings), method.membership(embeddings))


def test_probes_go_where_the_choice_is_least_certain() -> None:
    mean = np.array([[0.9, 0.5], [0.1, 0.5]])
    uncertain = Belief(mean, 0.01 * np.eye(4))

    first, second = allocation(uncertain, count=20, available=np.array([100.0, 100.0]))

    assert second > first
    assert first + second == 20


def test_probes_go_also_where_the_prior_is_sure() -> None:
    sure = Belief(np.full((2, 2), 0.01), 1e-6 * np.eye(4))

    assert min(allocation(sure, count=20, available=np.array([100.0, 100.0]))) > 4


def test_no_more_probes_of_a_kind_than_there_are() -> None:
    belief = Belief(np.full((2, 2), 0.5), 0.01 * np.eye(4))

    assert sum(allocation(belief, count=20, available=np.array([3.0, 4.0]))) == 7
