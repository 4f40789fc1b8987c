"""Loads reach the router where time has a price, and experts at zero are weighed with their start."""

from collections.abc import AsyncIterator

import pytest

from deployments.contracts.messages import RouterResponse
from deployments.observability import metrics
from deployments.upstream.load import Begun
from router.core import Decision, ExpertView, Preferences
from tests.deployments.harness import IngressHarness, settle

PRICED = {"latency_weight": 0.01}


@pytest.fixture
async def harness() -> AsyncIterator[IngressHarness]:
    made = IngressHarness()
    for expert in made.api.registry.experts.values():
        for _ in range(3):
            expert.load.ended(Begun(10, 1, 0.0), 1.0, 10, 0.5)
    yield made
    await made.http.aclose()


def view(utility: float, wait_ms: float) -> ExpertView:
    return ExpertView(0.9, None, None, True, None, utility, latency_ms=wait_ms + 100, wait_ms=wait_ms)


def decides(harness: IngressHarness, small: ExpertView, large: ExpertView) -> None:
    order = ("small", "large") if (small.utility or 0) >= (large.utility or 0) else ("large", "small")
    preferences = Preferences(latency_weight=0.01)
    decision = Decision(order, {"small": small, "large": large}, "0123456789ab", preferences=preferences)
    harness.router.answer = RouterResponse(decision)


async def test_loads_are_sent_where_time_has_a_price_or_a_limit(harness: IngressHarness) -> None:
    await harness.ask()
    await harness.ask(routing={"max_ttft_ms": 500})
    await harness.ask(routing=PRICED)
    await harness.ask(routing={"max_latency_ms": 500})

    plain, ttft, priced, ceiling = harness.router.asked
    assert not plain.load
    assert ttft.load.keys() == priced.load.keys() == ceiling.load.keys() == {"small", "large"}
    assert priced.preferences.latency_weight == 0.01


async def test_a_later_turn_reports_what_its_expert_holds(harness: IngressHarness) -> None:
    hi = [{"role": "user", "content": "hi " * 400}]
    more = [*hi, {"role": "assistant", "content": "hello"}, {"role": "user", "content": "more"}]
    await harness.ask(messages=hi)
    await harness.ask(messages=more, routing=PRICED)
    await harness.ask(messages=[*more[:2], {"role": "user", "content": "else"}], routing=PRICED)

    _, second, third = harness.router.asked
    assert second.load["small"].cached_tokens > 200
    assert second.load["large"].cached_tokens == 0
    assert third.load["small"].cached_tokens == second.load["small"].cached_tokens


async def test_later_turns_are_counted_by_whether_they_stay(harness: IngressHarness) -> None:
    stayed, moved = (metrics.conversation_turns.labels(result) for result in ("stayed", "moved"))
    before = stayed._value.get(), moved._value.get()
    for preferred in ("small", "small", "large"):
        other = "large" if preferred == "small" else "small"
        decides(harness, **{preferred: view(0.8, 0), other: view(0.5, 0)})
        await harness.ask({"x-router-session": "chat-8"}, routing=PRICED)

    assert (stayed._value.get() - before[0], moved._value.get() - before[1]) == (1, 1)


async def test_a_session_id_stands_for_the_turns(harness: IngressHarness) -> None:
    for content in ("hi", "other"):
        await harness.ask(
            {"x-router-session": "chat-7"},
            messages=[{"role": "user", "content": content}],
            routing=PRICED,
        )

    first, second = harness.router.asked
    assert first.load["small"].cached_tokens == 0
    assert second.load["small"].cached_tokens > 0


async def test_an_expert_at_zero_that_is_worth_its_start_is_waited_for(harness: IngressHarness) -> None:
    harness.scale_to_zero("small")
    decides(harness, view(0.8, 10_000), view(0.5, 0))
    response = await harness.ask(routing=PRICED)

    assert harness.router.asked[0].load["small"].wait_s > 1
    assert response.headers["x-router-expert"] == "small"


async def test_one_that_would_be_first_if_it_ran_is_started(harness: IngressHarness) -> None:
    harness.scale_to_zero("small")
    decides(harness, view(0.3, 60_000), view(0.5, 0))  # 0.3 + 0.01 × 60 s > 0.5
    response = await harness.ask(routing=PRICED)
    await settle()

    assert response.headers["x-router-expert"] == "large"
    assert [call[1] for call in harness.experts["small"].asked] == ["/v1/models"]


async def test_one_that_would_not_be_first_stays_at_zero(harness: IngressHarness) -> None:
    harness.scale_to_zero("small")
    decides(harness, view(0.1, 10_000), view(0.5, 0))
    await harness.ask(routing=PRICED)
    await settle()

    assert not harness.experts["small"].asked


async def test_a_limit_on_time_counts_no_start(harness: IngressHarness) -> None:
    harness.scale_to_zero("small")
    decides(harness, view(0.8, 100), view(0.5, 0))
    response = await harness.ask(routing={"max_ttft_ms": 500})
    await settle()

    assert harness.router.asked[0].load["small"].wait_s < 1
    assert response.headers["x-router-expert"] == "large"
    assert [call[1] for call in harness.experts["small"].asked] == ["/v1/models"]


async def test_route_shows_the_times_of_the_decision(harness: IngressHarness) -> None:
    decides(harness, view(0.8, 2000), view(0.5, 0))
    body = {"model": "auto", "messages": [{"role": "user", "content": "hi"}], "routing": PRICED}
    told = (await harness.http.post("/v1/route", json=body)).json()["experts"]["small"]

    assert (told["wait_ms"], told["latency_ms"]) == (2000, 2100)
