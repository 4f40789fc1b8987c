"""Plans carried out over HTTP with stand-ins for the experts: what is called, returned, charged and ended."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from deployments.contracts.errors import ExpertUnavailable
from deployments.contracts.messages import PolicyView, RouterResponse, RouterState, ServedPlan
from deployments.limits.keys import KeyLimits
from deployments.observability import metrics
from deployments.upstream.circuit_breaker import FAILURES_TO_OPEN
from router.core import Decision, ExpertView, PlanView
from router.experts import Price
from router.plans.acceptance import FEATURES, AcceptanceModel
from router.plans.plan import Plan
from router.plans.signals import Signals
from tests.deployments.fakes import EVENTS, answer, event
from tests.deployments.harness import HELLO, IngressHarness, settle
from tests.deployments.ingress.test_accounting import Kept
from tests.deployments.limits.test_budgets import Budget

NAMES = ("small", "code", "large")
CHECK = Plan("check", ("small",), "large", 0.5)
AGREE = Plan("agree", ("small", "code"), "large", 0.5)
VOTE = Plan("vote", ("small",), "large", 0.5, samples=3)
HOLD = Plan("hold", ("small",), "large", 0.5, hold_tokens=2)
DONE = b"data: [DONE]\n\n"


def model(**weights: float) -> AcceptanceModel:
    """An acceptance model that weighs these features; sure of nothing without them."""
    values = np.array([weights.get(name, 0.0) for name in FEATURES])
    return AcceptanceModel(
        values, np.zeros(len(FEATURES)), np.ones(len(FEATURES)), weights.get("always", 0.0)
    )


SURE, UNSURE = model(always=5.0), model(always=-5.0)


def house(plan: Plan, acceptance: AcceptanceModel, **options: Any) -> IngressHarness:
    """An ingress whose router prefers a plan, then the experts."""
    harness = IngressHarness(names=NAMES, **options)
    prefer(harness, plan, acceptance)
    return harness


def prefer(harness: IngressHarness, plan: Plan, acceptance: AcceptanceModel) -> None:
    """Let the router of a harness rank a plan first."""
    prices = dict.fromkeys(NAMES, Price(1.0, 2.0))
    plans = {plan.name: ServedPlan(plan, acceptance)}
    view = PolicyView("0123456789ab", NAMES, NAMES, {}, prices, plans=plans)
    harness.api.registry.update_router(RouterState(view, None))
    views = {name: ExpertView(0.5, 1e-6, None, eligible=True, utility=0.5) for name in NAMES}
    planned = PlanView(views["small"], plan.ask, plan.samples, plan.otherwise, 0.7, 100.0)
    decision = Decision((plan.name, *NAMES), views, "0123456789ab", plans={plan.name: planned})
    harness.router.answer = RouterResponse(decision)


def asked(harness: IngressHarness) -> dict[str, int]:
    return {name: len(expert.asked) for name, expert in harness.experts.items() if expert.asked}


def held(harness: IngressHarness) -> int:
    return sum(expert.slots.held for expert in harness.api.registry.experts.values()) + harness.api.queue.held


def chunk(text: str, logprob: float, *, index: int = 0) -> bytes:
    """A chunk of a stream with the log-probability of its token."""
    choice = {
        "index": index,
        "delta": {"content": text},
        "logprobs": {"content": [{"token": text, "logprob": logprob, "bytes": None, "top_logprobs": []}]},
        "finish_reason": None,
    }
    return b"data: " + orjson.dumps({"id": "c", "model": "small", "choices": [choice]}) + b"\n\n"


async def test_an_accepted_answer_is_returned_as_it_was_written() -> None:
    harness = house(CHECK, SURE)

    response = await harness.ask()

    assert response.content == answer("small")
    assert response.headers["x-router-expert"] == "small"
    assert response.headers["x-router-plan"] == "check"
    assert response.headers["x-router-accepted"] == "true"
    assert response.headers["x-router-attempts"] == "1"
    assert asked(harness) == {"small": 1}
    assert held(harness) == 0


async def test_a_rejected_answer_is_replaced_by_the_else_expert() -> None:
    harness = house(CHECK, UNSURE)

    response = await harness.ask()

    assert response.headers["x-router-expert"] == "large"
    assert response.headers["x-router-accepted"] == "false"
    assert response.headers["x-router-attempts"] == "2"
    assert response.headers["x-router-reason"] == "routed"
    assert asked(harness) == {"small": 1, "large": 1}
    assert held(harness) == 0


@pytest.mark.parametrize(("second", "expert"), [("42", "small"), ("43", "large")])
async def test_agreement_of_two_members_accepts(second: str, expert: str) -> None:
    harness = house(AGREE, model(agreement=8.0, always=-4.0))
    harness.experts["code"].parts = [answer("code", second)]

    response = await harness.ask()

    assert response.headers["x-router-expert"] == expert
    assert held(harness) == 0


async def test_a_member_that_is_full_leaves_the_plan_out() -> None:
    harness = house(AGREE, SURE, code={"max_in_flight": 1})
    harness.api.registry.experts["code"].slots.try_acquire()

    response = await harness.ask()

    assert response.headers["x-router-expert"] == "small"
    assert "x-router-plan" not in response.headers
    assert asked(harness) == {"small": 1}
    assert harness.api.registry.experts["small"].slots.held == 0


async def test_a_member_that_fails_rejects_the_plan() -> None:
    harness = house(AGREE, SURE)
    harness.experts["code"].parts = [ExpertUnavailable("code", "gone")]

    response = await harness.ask()

    assert response.headers["x-router-expert"] == "large"
    assert response.headers["x-router-accepted"] == "false"
    assert held(harness) == 0


async def test_streams_that_break_while_held_open_the_breaker() -> None:
    harness = house(CHECK, SURE)
    for name, parts in {"small": [chunk("4", -0.1), ExpertUnavailable("small", "gone")], "large": []}.items():
        harness.experts[name].headers = EVENTS
        harness.experts[name].parts = parts or [event("large", "yes"), DONE]
    for number in range(FAILURES_TO_OPEN):
        response = await harness.ask(stream=True, messages=[{"role": "user", "content": str(number)}])
        assert response.headers["x-router-expert"] == "large"

    assert harness.api.registry.experts["small"].breaker.state == "open"
    assert held(harness) == 0


async def test_a_held_answer_is_returned_where_else_fails() -> None:
    harness = house(CHECK, UNSURE)
    harness.experts["large"].parts = [ExpertUnavailable("large", "gone")]

    response = await harness.ask()

    assert response.content == answer("small")
    assert response.headers["x-router-accepted"] == "false"
    assert held(harness) == 0


async def test_a_held_stream_is_replayed_without_log_probabilities() -> None:
    harness = house(CHECK, model(mean_logprob=10.0, always=5.0))
    expert = harness.experts["small"]
    expert.headers = EVENTS
    expert.parts = [chunk("4", -0.1), chunk("2", -0.1), DONE]

    response = await harness.ask(stream=True)

    assert expert.body()["logprobs"] is True
    assert b'"logprob"' not in response.content
    assert response.content.count(b'"logprobs":null') == 2
    assert response.content.endswith(DONE)
    assert response.headers["x-router-accepted"] == "true"
    assert held(harness) == 0


async def test_the_beginning_of_a_stream_decides_and_the_rest_is_live() -> None:
    harness = house(HOLD, model(mean_logprob=10.0, always=5.0))
    expert = harness.experts["small"]
    expert.headers = EVENTS
    expert.parts = [chunk("a", -0.1), chunk("b", -0.1), chunk("c", -9.0), DONE]

    response = await harness.ask(stream=True)

    assert response.headers["x-router-accepted"] == "true"
    assert b'"logprob"' not in response.content
    assert response.content.count(b"data: ") == 4


async def test_a_bad_beginning_aborts_the_stream() -> None:
    harness = house(HOLD, model(mean_logprob=10.0, always=5.0))
    expert = harness.experts["small"]
    expert.headers = EVENTS
    expert.parts = [chunk("a", -3.0), chunk("b", -3.0), chunk("c", -0.1), DONE]
    harness.experts["large"].headers = EVENTS
    harness.experts["large"].parts = [event("large", "yes"), DONE]

    response = await harness.ask(stream=True)

    assert response.headers["x-router-expert"] == "large"
    assert expert.closed == 1
    assert held(harness) == 0


async def test_a_vote_returns_one_answer_of_the_majority() -> None:
    harness = house(VOTE, model(agreement=10.0, always=-5.0))
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": f"The answer is {text}"},
            "logprobs": {"content": [{"token": "x", "logprob": -0.1}] * 4},
            "finish_reason": "stop",
        }
        for index, text in enumerate(("7", "8", "8"))
    ]
    usage = {"prompt_tokens": 11, "completion_tokens": 12, "total_tokens": 23}
    harness.experts["small"].parts = [orjson.dumps({"id": "c", "choices": choices, "usage": usage})]

    response = await harness.ask(temperature=0.7)

    body = response.json()
    assert harness.experts["small"].body()["n"] == 3
    assert [choice["message"]["content"] for choice in body["choices"]] == ["The answer is 8"]
    assert body["choices"][0]["index"] == 0
    assert body["choices"][0]["logprobs"] is None
    assert body["usage"] == {"prompt_tokens": 11, "completion_tokens": 4, "total_tokens": 15}


async def test_a_client_that_leaves_ends_all_members() -> None:
    harness = house(AGREE, SURE)
    harness.experts["code"].parts = [asyncio.Event().wait]
    exchange = harness.exchange()
    await settle()

    await exchange.disconnect()

    assert asked(harness) == {"small": 1, "code": 1}
    assert held(harness) == 0


async def test_a_rating_of_an_accepted_answer_counts_beside_its_prediction() -> None:
    def counted(name: str) -> float:
        return metrics.registry.get_sample_value(f"to_router_plan_quality_{name}", {"plan": "check"}) or 0.0

    harness = house(CHECK, SURE)
    response = await harness.ask()
    before = [counted(name) for name in ("count", "sum", "predicted_total")]

    rating = {"request_id": response.headers["x-request-id"], "quality": 0.5}
    status = (await harness.http.post("/v1/feedback", json=rating)).status_code

    assert status == 204
    after = [counted(name) for name in ("count", "sum", "predicted_total")]
    added = [now - was for now, was in zip(after, before, strict=True)]
    assert added == pytest.approx([1, 0.5, SURE.p_right(Signals())], rel=1e-6)


async def test_lists_may_name_plans() -> None:
    harness = house(CHECK, SURE)
    await harness.ask(routing={"exclude": ["check"]})
    excluded = harness.router.asked[-1].excluded
    await harness.ask(routing={"experts": list(NAMES)})
    await harness.ask(routing={"experts": [*NAMES, "check"]})

    assert excluded == {"check": "in routing.exclude"}
    assert [request.excluded for request in harness.router.asked[-2:]] == [{}, {}]
    assert (await harness.ask(routing={"exclude": ["other"]})).status_code == 400


async def test_a_retry_gets_no_plan() -> None:
    harness = house(CHECK, SURE)

    await harness.ask({"x-stainless-retry-count": "1"})

    assert not harness.router.asked[-1].plans


async def test_a_hold_that_takes_too_long_returns_a_finished_member() -> None:
    harness = house(AGREE, SURE, limits={"max_hold_s": 0.05})
    harness.experts["code"].parts = [asyncio.Event().wait]

    response = await harness.ask()

    assert response.headers["x-router-expert"] == "small"
    assert response.headers["x-router-plan"] == "agree"
    assert held(harness) == 0


async def test_the_record_holds_the_plan_and_every_call() -> None:
    records = Kept()
    harness = house(AGREE, UNSURE, records=records)

    await harness.ask()

    record = records.records[0]
    plan = record["plan"]
    assert (plan["name"], plan["accepted"], plan["result"]) == ("agree", False, "rejected")
    assert plan["signals"]["agreement"] == 1.0
    assert [(call["expert"], call["outcome"]) for call in record["attempts"]] == [
        ("small", "rejected"), ("code", "rejected"), ("large", "answered"),
    ]  # fmt: skip
    assert [call["completion_tokens"] for call in record["attempts"]] == [2, 2, None]
    assert plan["cost_usd"] == 1e-6


async def test_metrics_count_the_tokens_of_every_call() -> None:
    def counted(expert: str) -> float:
        labels = {"expert": expert, "direction": "completion"}
        return metrics.registry.get_sample_value("to_router_tokens_total", labels) or 0.0

    harness = house(AGREE, UNSURE)
    before = [counted(name) for name in NAMES]

    await harness.ask()

    assert [counted(name) - was for name, was in zip(NAMES, before, strict=True)] == [2, 2, 2]


async def test_score_and_cost_of_a_plan_are_predicted_in_the_headers() -> None:
    harness = house(CHECK, UNSURE)
    decision = harness.router.answer.decision
    planned = decision.plans["check"]
    view = planned.view._replace(score=0.75, cost_usd=3e-6)
    plans = {"check": replace(planned, view=view)}
    harness.router.answer = RouterResponse(replace(decision, plans=plans))

    response = await harness.ask()

    assert response.headers["x-router-expert"] == "large"
    assert response.headers["x-router-score"] == "0.7500"
    assert float(response.headers["x-router-cost-usd"]) == pytest.approx(3e-6)


@pytest.mark.parametrize(
    ("plan", "acceptance", "calls"),
    [(CHECK, SURE, 1), (CHECK, UNSURE, 2), (AGREE, SURE, 2), (AGREE, UNSURE, 3)],
)
async def test_a_key_is_charged_for_every_call(
    plan: Plan, acceptance: AcceptanceModel, calls: int, tmp_path: Path
) -> None:
    budget = Budget(tmp_path, names=NAMES)
    prefer(budget.harness, plan, acceptance)

    await budget.harness.ask(budget.headers, max_tokens=50)

    totals = await budget.charged()
    assert (totals.requests, totals.tokens, totals.in_flight) == (1, calls * 13, 0)


async def test_an_aborted_member_is_charged_for_what_was_seen(tmp_path: Path) -> None:
    budget = Budget(tmp_path, names=NAMES)
    prefer(budget.harness, HOLD, model(mean_logprob=10.0, always=5.0))
    experts = budget.harness.experts
    experts["small"].headers = experts["large"].headers = EVENTS
    experts["small"].parts = [chunk("a", -3.0), chunk("b", -3.0), asyncio.Event().wait]
    usage = {"prompt_tokens": 11, "completion_tokens": 2, "total_tokens": 13}
    last = b"data: " + orjson.dumps({"choices": [], "usage": usage}) + b"\n\n"
    experts["large"].parts = [event("large", "yes"), last, DONE]

    response = await budget.harness.ask(budget.headers, stream=True, max_tokens=200)

    assert response.headers["x-router-expert"] == "large"
    totals = await budget.charged()
    assert 13 + 2 < totals.tokens < 100


async def test_a_key_without_budget_for_a_plan_gets_one_answer(tmp_path: Path) -> None:
    budget = Budget(tmp_path, KeyLimits(tokens_per_minute=100, requests_per_minute=1), names=NAMES)
    prefer(budget.harness, CHECK, SURE)

    response = await budget.harness.ask(budget.headers, max_tokens=60)

    assert response.status_code == 200
    assert "x-router-plan" not in response.headers


async def test_a_plan_counts_as_one_request(tmp_path: Path) -> None:
    budget = Budget(tmp_path, KeyLimits(requests_per_minute=1, max_concurrent=1), names=NAMES)
    prefer(budget.harness, AGREE, UNSURE)

    response = await budget.harness.ask(budget.headers)

    assert response.headers["x-router-plan"] == "agree"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"n": 2}, "several completions"),
        ({"logprobs": True}, "log-probabilities of its own"),
        ({"messages": [{"role": "tool", "content": "4", "tool_call_id": "a"}]}, "tool results"),
        ({"routing": {"max_calls": 1}}, "more than max_calls 1"),
    ],
)
async def test_a_plan_is_excluded_with_the_reason(fields: dict[str, Any], reason: str) -> None:
    harness = house(CHECK, SURE)

    await harness.ask(**fields)

    assert reason in harness.router.asked[-1].excluded["check"]


@pytest.mark.parametrize(("text", "accepted"), [("42", "true"), ("forty-two", "false")])
async def test_a_check_of_the_caller_must_hold(text: str, accepted: str) -> None:
    harness = house(CHECK, SURE)
    harness.experts["small"].parts = [answer("small", text)]

    response = await harness.ask(routing={"check": {"regex": r"^\d+$"}})

    assert response.headers["x-router-accepted"] == accepted


@pytest.mark.parametrize(
    "check", [{}, {"regex": "("}, {"regex": "a", "json_schema": {}}, {"json_schema": {"$ref": "#"}}]
)
async def test_a_check_that_cannot_be_made_is_rejected(check: dict[str, Any]) -> None:
    harness = house(CHECK, SURE)

    response = await harness.ask(routing={"check": check})

    assert response.status_code == 400
    assert response.json()["error"]["param"] == "routing.check"


async def test_route_shows_the_plan() -> None:
    harness = house(CHECK, SURE)

    body = (await harness.http.post("/v1/route", json=HELLO)).json()

    assert body["ranking"] == ["check", *NAMES]
    assert body["expert"] == "small"
    assert body["plans"]["check"]["ask"] == ["small"]
    assert body["plans"]["check"]["else"] == "large"
    assert body["plans"]["check"]["p_accept"] == 0.7
