"""What a plan would have given follows exactly from its members' recorded responses."""

import numpy as np
import pytest

from router.answers import agreement
from router.data.dataset import to_dataset
from router.plans.acceptance import AcceptanceModel
from router.plans.plan import Plan
from router.plans.replay import Recording, replay
from tests.router.plans.answered import POOL, answered, rows, with_logprobs

PAIR = Plan("pair", ("small", "code"), "large", 0.6)
SCORES = np.full((200, 3), 0.7)


def model_of(plan: Plan) -> AcceptanceModel:
    evidence = Recording(answered(400, seed=9, samples=3)).evidence(plan, np.full((400, 3), 0.7))
    return AcceptanceModel.fit_features(evidence.table, evidence.quality)


def test_an_agreeing_answer_is_accepted_and_another_replaced() -> None:
    data = answered()
    texts = data.written["response"]
    agreed = np.array([agreement(a, b) == 1 for a, b, _ in texts])

    found = replay(PAIR, data, model_of(PAIR), SCORES)

    np.testing.assert_array_equal(found.accepted, agreed)
    np.testing.assert_array_equal(found.quality, np.where(agreed, data.quality[:, 0], data.quality[:, 2]))
    assert found.quality.mean() > data.quality[:, 2].mean()
    assert data.costs_usd is not None
    assert found.cost_usd is not None
    np.testing.assert_allclose(
        found.cost_usd, data.costs_usd[:, :2].sum(axis=1) + np.where(agreed, 0, data.costs_usd[:, 2])
    )


def test_a_vote_is_replayed_on_recorded_samples() -> None:
    plan = Plan("vote", ("small",), "large", 0.6, samples=3)
    data = answered(samples=3)

    found = replay(plan, data, model_of(plan), SCORES)

    assert Recording(data).samples_of("small") == 3
    assert np.isfinite(found.quality).all()
    assert found.quality.mean() > data.quality[:, 2].mean()
    assert found.cost_usd is not None
    assert data.costs_usd is not None
    assert found.cost_usd[found.accepted == 1] == pytest.approx((12 * 0.05 + 3 * 9 * 0.10) / 1e6)
    assert Recording(data).calls_of(plan).accepted == pytest.approx(3.3 / 1.5)  # the prompt counts once


def test_a_rejected_beginning_costs_only_its_tokens() -> None:
    plan = Plan("hold", ("small",), "large", 0.6, hold_tokens=16)
    data = to_dataset(with_logprobs(rows(200), 64), pool=POOL)
    recording = Recording(data)
    evidence = recording.evidence(plan, SCORES)
    model = AcceptanceModel.fit_features(evidence.table, evidence.quality)

    found = replay(plan, data, model, SCORES)

    assert found.cost_usd is not None
    assert data.costs_usd is not None
    accepted = found.accepted == 1
    beginning = (12 * 0.05 + 16 * 0.10) / 1e6
    assert 20 < accepted.sum() < 180
    np.testing.assert_allclose(found.cost_usd[accepted], data.costs_usd[accepted, 0])
    np.testing.assert_allclose(found.cost_usd[~accepted], beginning + data.costs_usd[~accepted, 2])
    assert found.answer_quality[accepted].mean() > data.quality[:, 0].mean() + 0.05
    calls = recording.calls_of(plan)
    assert (calls.accepted, calls.held) == (1.0, 0.25)
    assert calls.rejected == pytest.approx(beginning / data.costs_usd[0, 0])


def test_a_missing_response_leaves_the_plans_outcome_open() -> None:
    made = [row for row in rows(50) if (row["query_id"], row["expert"]) != ("q3", "code")]
    made[0] = {**made[0], "response": None}

    found = replay(PAIR, to_dataset(made, pool=POOL), model_of(PAIR), SCORES[:50])

    assert np.flatnonzero(np.isnan(found.quality)).tolist() == [0, 3]


def test_without_responses_nothing_can_be_replayed() -> None:
    made = [{**row, "response": None} for row in rows(20)]

    recording = Recording(to_dataset(made, pool=POOL))

    assert not recording.has_responses
    assert not recording.evidence(PAIR, SCORES[:20]).known.any()
