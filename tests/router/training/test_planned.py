"""Plans are kept where they help, decide with their members' costs, and survive every change of a policy."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from router import artifact
from router.core import Decision, Preferences, QueryBatch, RouteRequest
from router.data.dataset import Dataset, to_dataset
from router.encoders import EncoderSpec
from router.errors import ManifestError, PlanError
from router.evaluation.evaluate import judge, report
from router.experts import ExpertProfile, Price
from router.plans.plan import Plan
from router.policy import Policy
from router.training.add_expert import add_expert
from router.training.card import card
from router.training.train import train
from tests.router.data_sets import embeddings
from tests.router.plans.answered import POOL, answered, rows

SPEC = EncoderSpec("test", "0" * 64, 16, 128)
QUERY = "What is 3 plus 4?"
BATCH = QueryBatch((QUERY,), embeddings((QUERY,)))


def trained(data: Dataset, **options: Any) -> Policy:
    return train(data, embeddings(data.texts), SPEC, **{"method": "knn", "plans": "auto", **options})


PLAN = Plan("agree", ("small", "code"), "large", 0.7)


@pytest.fixture(scope="module")
def policy() -> Policy:
    return trained(answered(300), plans=[PLAN])


def decided(policy: Policy, **request: Any) -> Decision:
    (decision,) = policy.decide(BATCH, [RouteRequest(QUERY, **{"plans": True, **request})])
    return decision


def test_plans_whose_gain_is_certain_are_kept() -> None:
    found = trained(answered(300))

    assert found.plans is not None
    facts = found.training["metrics"]["plans"]
    plan = next(plan for plan in found.plans.plans if plan.otherwise == "large")
    assert set(plan.ask) == {"small", "code"}
    assert facts["kept"] == len(found.plans) <= facts["tried"] <= 3
    assert facts["gain"] > facts["standard_error"]
    assert facts["plans"][plan.name]["precision"] > 0.95
    assert plan.name in card(found)


def test_a_plan_is_ranked_with_its_members_costs(policy: Policy) -> None:
    assert policy.plans is not None
    decision = decided(policy, preferences=Preferences(cost_weight=0.0))
    (name,) = policy.plans.names

    plan, costs = decision.plans[name], {n: v.cost_usd or 0.0 for n, v in decision.experts.items()}
    assert decision.candidate == name
    assert plan.view.cost_usd == pytest.approx(
        costs["small"] + costs["code"] + (1 - plan.p_accept) * costs["large"]
    )
    assert plan.hold_ms is not None
    assert plan.hold_ms == pytest.approx(300, rel=0.05)
    assert plan.view.ttft_ms == pytest.approx(plan.hold_ms + (1 - plan.p_accept) * 100, rel=0.05)
    assert decision.expert in {plan.ask[0], "large"}


def test_callers_that_carry_out_no_plan_get_experts_only(policy: Policy) -> None:
    decision = decided(policy, plans=False)

    assert set(decision.ranking) == set(POOL.names)
    (plan,) = decision.plans.values()
    assert plan.view.excluded_because == "plans are off for this request"
    assert decision.preferences == policy.preferences_without_plans
    assert decided(policy).preferences == policy.preferences
    assert decided(
        policy.with_overrides(preferences=Preferences(cost_weight=9.0)), plans=False
    ).preferences == (Preferences(cost_weight=9.0))


@pytest.mark.parametrize(
    ("request_fields", "why"),
    [
        ({"excluded": {"code": "circuit breaker open"}}, "code is ineligible: circuit breaker open"),
        ({"max_hold_ms": 10.0}, "expected to hold the answer for"),
        ({"latency_ms": {"small": 9e4}, "max_hold_ms": 1e4}, "for 90000 ms, more than 10000 ms"),
        ({"preferences": Preferences(max_ttft_ms=200)}, "is above max_ttft_ms 200"),
        ({"preferences": Preferences(max_cost_usd=1e-6)}, "is above max_cost_usd 1e-06"),
    ],
)
def test_a_plan_that_cannot_be_carried_out_is_excluded(
    policy: Policy, request_fields: dict[str, Any], why: str
) -> None:
    (plan,) = decided(policy, **request_fields).plans.values()

    assert not plan.view.eligible
    assert why in str(plan.view.excluded_because)


def test_a_plan_can_be_excluded_by_its_name(policy: Policy) -> None:
    assert policy.plans is not None
    (name,) = policy.plans.names

    decision = decided(policy, excluded={name: "in routing.exclude"})

    assert decision.plans[name].view.excluded_because == "in routing.exclude"


def test_plans_rescale_no_preference_of_the_experts(policy: Policy) -> None:
    assert policy.plans is not None
    (name,) = policy.plans.names

    with_plan = decided(policy, preferences=Preferences(cost_weight=0.3))
    without = decided(policy, preferences=Preferences(cost_weight=0.3), excluded={name: "no"})

    assert with_plan.experts == without.experts


def test_new_prices_change_a_plans_cost(policy: Policy) -> None:
    changed = policy.with_overrides(prices={"large": Price(50.0, 100.0)})

    (before,), (after,) = decided(policy).plans.values(), decided(changed).plans.values()
    assert (after.view.cost_usd or 0) > 2 * (before.view.cost_usd or 0)


def test_a_saved_policy_decides_with_its_plans_as_before(policy: Policy, tmp_path: Path) -> None:
    policy.save(tmp_path / "p", "")
    loaded = Policy.load(tmp_path / "p")

    ours, theirs = decided(policy), decided(loaded)
    assert replace(ours, policy_id=theirs.policy_id) == theirs
    assert artifact.load(tmp_path / "p")[0].facts["schema_version"] == 3
    assert loaded.plans is not None
    assert policy.plans is not None
    assert loaded.plans.plans == policy.plans.plans
    assert decided(loaded, plans=False).preferences == policy.preferences_without_plans


def test_an_acceptance_model_of_another_build_is_named(policy: Policy, tmp_path: Path) -> None:
    assert policy.plans is not None
    policy.save(tmp_path / "p", "")
    facts = policy.plans.to_json()
    facts[0]["acceptance"]["features"] = ["mood"]

    with pytest.raises(ManifestError, match="reads other signals"):
        policy.plans.restore(facts, policy.plans.arrays(), POOL.names)


def test_a_policy_without_plans_has_the_schema_that_older_builds_read(tmp_path: Path) -> None:
    trained(answered(60), plans="none").save(tmp_path / "p", "")

    facts = artifact.load(tmp_path / "p")[0].facts
    assert facts["schema_version"] == 2
    assert "plans" not in facts


def test_where_no_plan_helps_none_is_kept_and_experts_decide_as_without() -> None:
    made = [{**row, "response": "The answer is 7."} for row in rows(200)]
    data = to_dataset(made, pool=POOL)

    found, plain = trained(data), trained(data, plans="none")

    assert found.plans is None
    assert found.training["metrics"]["plans"]["tried"] in {1, 2, 3}
    assert decided(found).ranking == decided(plain).ranking
    assert decided(found).experts == decided(plain).experts


def test_without_responses_plans_are_left_out_and_it_says_so() -> None:
    data = to_dataset([{**row, "response": None} for row in rows(100)], pool=POOL)
    lines: list[str] = []

    found = trained(data, notify=lines.append)

    assert found.plans is None
    assert any("no plans: the outcomes hold no responses" in line for line in lines)
    with pytest.raises(PlanError, match="recorded responses"):
        trained(data, plans=[Plan("p", ("small",), "large", 0.5)])


def test_given_plans_are_kept_and_checked() -> None:
    plan = Plan("mine", ("small", "code"), "large", 0.6)

    found = trained(answered(100), plans=[plan])

    assert found.plans is not None
    assert found.plans.plans == (plan,)
    with pytest.raises(PlanError, match="names 'huge'"):
        trained(answered(60), plans=[Plan("p", ("small",), "huge", 0.5)])


def test_votes_are_tried_where_samples_are_recorded() -> None:
    found = trained(answered(200, samples=3))

    assert found.training["metrics"]["plans"]["tried"] > 3


def test_an_expert_is_added_beside_plans(policy: Policy) -> None:
    assert policy.plans is not None
    made = rows(60, seed=5)
    made += [{**row, "expert": "fourth", "quality": 0.6} for row in made if row["expert"] == "small"]
    probes = to_dataset(made)

    grown = add_expert(policy, probes, embeddings(probes.texts), name="fourth")

    before, after = policy.score(BATCH).quality[0], grown.score(BATCH).quality[0]
    assert grown.candidates == ("small", "code", "large", "fourth", *policy.plans.names)
    np.testing.assert_allclose(after[[0, 1, 2, 4]], before)
    assert after[3] == pytest.approx(0.6, abs=0.1)
    assert grown.pool["fourth"] == ExpertProfile("fourth")
    assert set(grown.static_ranking) == set(grown.pool.names)
    assert grown.training["best_single"] == "large"


def test_an_evaluation_holds_plans_beside_the_experts(policy: Policy) -> None:
    assert policy.plans is not None
    data = answered(200, seed=3)
    (name,) = policy.plans.names

    figures = report(judge(policy, data, embeddings(data.texts)))

    plan = figures["experts"][name]
    assert plan["plan"] is True
    assert plan["quality"] > figures["best_single"]["quality"]
    assert plan["precision"] == pytest.approx(plan["predicted_precision"], abs=0.05)
    assert figures["best_single"]["name"] == "large"
    assert figures["oracle"]["quality"] == pytest.approx(data.quality.max(axis=1).mean())
    assert figures["random"]["quality"] == pytest.approx(data.quality.mean())
    assert figures["quality_gain_points"] > 0
    assert set(figures["calibration"]) == set(policy.candidates)


def test_outcomes_without_responses_are_evaluated_without_plans(policy: Policy) -> None:
    data = to_dataset([{**row, "response": None} for row in rows(80, seed=4)], pool=POOL)

    figures = report(judge(policy, data, embeddings(data.texts)))

    assert set(figures["experts"]) == set(POOL.names)
