"""Few plans are kept, by the lower bound of their gain over the experts' front."""

import numpy as np
import pytest

from router.data.dataset import Dataset, to_dataset
from router.plans.choice import HOLD_TOKENS, Trials, Tried, choose, gain_bounds
from router.plans.plan import Plan
from router.plans.replay import Recording
from tests.router.plans.answered import POOL, answered, rows, with_logprobs


def trials(data: Dataset) -> Trials:
    folds = np.arange(len(data)) % 5
    return Trials(Recording(data), np.tile([0.7, 0.7, 0.85], (len(data), 1)), folds)


def tried(data: Dataset) -> list[Tried]:
    made = trials(data)
    return [made.of(plan) for plan in made.enumerate()]


def test_pairs_and_votes_are_enumerated_with_another_expert_behind() -> None:
    single, several = trials(answered(100)).enumerate(), trials(answered(100, samples=3)).enumerate()

    assert (frozenset({"small", "code"}), "large") in {
        (frozenset(plan.ask), plan.otherwise) for plan in single
    }
    assert len(single) == len({plan.name for plan in single}) <= 3
    assert {plan.ask[0] for plan in several if plan.is_vote} >= {"small", "code"}
    assert all(plan.samples == 3 for plan in several if plan.is_vote)


@pytest.mark.parametrize(("tokens", "held"), [(2 * HOLD_TOKENS, True), (HOLD_TOKENS, False)])
def test_a_beginning_is_judged_only_of_longer_answers(tokens: int, held: bool) -> None:
    data = to_dataset(with_logprobs(rows(100), tokens), pool=POOL)
    plans = trials(data).enumerate()

    assert [plan for plan in plans if plan.name.startswith("check-")]
    assert bool([plan for plan in plans if plan.hold_tokens == HOLD_TOKENS]) is held
    assert len({plan.name for plan in plans}) == len(plans)


def test_a_plan_with_a_certain_gain_is_kept() -> None:
    data = answered(300)
    options = tried(data)

    kept = choose(options, data.quality, data.costs_usd, np.arange(300))

    assert {"small", "code"} in [set(plan.ask) for plan in kept]
    assert len(kept) <= 3
    assert max(gain_bounds(options, data.quality, data.costs_usd)) > 0.02


def test_agreement_that_proves_nothing_keeps_no_plan() -> None:
    rng = np.random.default_rng(0)
    made = [{**row, "response": f"Answer: {rng.integers(2)}"} for row in rows(300)]
    data = to_dataset(made, pool=POOL)

    assert choose(tried(data), data.quality, data.costs_usd, np.arange(300)) == []


def test_without_costs_quality_alone_counts() -> None:
    data = answered(300)

    kept = choose(tried(data), data.quality, None, np.arange(300))

    assert kept[0].otherwise == "large"


def test_a_few_missing_answers_do_not_exclude_a_plan() -> None:
    made = rows(300)
    whole = to_dataset(made, pool=POOL)
    holes = to_dataset(
        [{**row, "response": None} if row["query_id"] in {"q3", "q8"} else row for row in made], pool=POOL
    )

    assert choose(tried(holes), holes.quality, holes.costs_usd, np.arange(300)) == choose(
        tried(whole), whole.quality, whole.costs_usd, np.arange(300)
    )


def test_each_row_is_judged_by_a_model_that_did_not_see_it() -> None:
    data = answered(200)
    made = trials(data)
    plan = Plan("p", ("small", "code"), "large", 0.6)

    outcome, model = made.of(plan).outcome, made.model(plan)

    evidence = Recording(data).evidence(plan, np.tile([0.7, 0.7, 0.85], (200, 1)))
    assert not np.allclose(outcome.p_right, model.p_right_features(evidence.table))
    np.testing.assert_allclose(outcome.p_right, model.p_right_features(evidence.table), atol=0.15)
