"""Plans on the real graph: what clients get, what is recorded, what is left running, and faults.

Simulated experts answer sums, so that each expert's answer to a query is known. The policy with plans is
deployed into the running graph, and taken out again.
"""

import asyncio
import contextlib
import copy
import itertools
import random
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import openai
import pytest

from experiments.simulated_plans import answer_of, behaviour, make_policy, plans_of
from router.learning.log import log_files, read_records
from router.learning.record import DecisionRecord
from tests.deployments.e2e.conftest import EXPERTS, Graph, Watch
from tests.deployments.e2e.load import CHAT
from tests.deployments.e2e.test_faults import run, wait_until_calm
from tests.deployments.e2e.test_seeing import scraped, until
from tests.deployments.e2e.test_stopping import deploy, running

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

PLANS = plans_of(EXPERTS)
MEMBER, LAST = EXPERTS[0], EXPERTS[-1]
numbers = itertools.count(1)


@pytest.fixture(scope="module")
def planned(graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Graph]:
    """The graph with a policy that has plans."""
    folder = tmp_path_factory.mktemp("plans")
    policy = make_policy(EXPERTS, folder / "policy")
    wait_until_calm(graph)
    before = running(graph)
    changed = copy.deepcopy(before)
    changed["applications"][0]["deployments"][1]["user_config"]["policy"] = str(folder / "policy")
    deploy(changed, folder)
    try:
        # Until an ingress replica knows the new policy, it rejects the names of plans.
        assert until(lambda: all(decision(graph).get("policy") == policy.policy_id for _ in range(6)), 30)
        yield graph
    finally:
        deploy(before, folder)
        assert until(lambda: all(not decision(graph, routing={})["plans"] for _ in range(6)), 30)
        wait_until_calm(graph)


def fields(plan: str, query: str | None = None, **more: Any) -> dict[str, Any]:
    """The body of a request for which one plan is best."""
    steering = {name: {**settings, **more.pop(name, {})} for name, settings in behaviour(EXPERTS).items()}
    return {
        "model": "auto",
        "messages": [{"role": "user", "content": query or f"What is {next(numbers)} + 5?"}],
        "routing": {"cost_weight": 0.0, "exclude": [name for name in PLANS if name != plan]},
        "simulate": steering,
        "max_tokens": 64,
        **({"temperature": 0.7} if plan == "vote" else {}),
        **more,
    }


def post(graph: Graph, body: dict[str, Any], path: str = CHAT, key: str = "") -> httpx.Response:
    headers = {"authorization": f"Bearer {key or graph.key}"}
    return httpx.post(graph.url + path, json=body, headers=headers, timeout=30)


def decision(graph: Graph, **more: Any) -> Any:
    return post(graph, fields("check", **more), "/v1/route").json()


def with_verdict(graph: Graph, plan: str, verdict: str, **more: Any) -> tuple[str, httpx.Response]:
    """A query of which the plan accepts the answer, or not; and the response to it."""
    for _ in range(60):
        query = f"What is {next(numbers)} + 7?"
        response = post(graph, fields(plan, query, **more))
        assert response.status_code == 200, response.text
        if response.headers.get("x-router-accepted") == verdict:
            assert response.headers["x-router-plan"] == plan
            return query, response
    raise AssertionError(f"no answer of plan {plan} with x-router-accepted: {verdict}")


def named(graph: Graph, expert: str, query: str, **more: Any) -> httpx.Response:
    """The response of an expert that the request names."""
    return post(graph, {**fields("check", query, **more), "model": expert, "routing": {}})


def without_ids(data: Any) -> Any:
    return {name: value for name, value in data.items() if name != "id"}


@pytest.mark.parametrize("plan", ["check", "agree"])
def test_an_accepted_answer_is_the_members_own(planned: Graph, plan: str) -> None:
    query, response = with_verdict(planned, plan, "true")

    assert without_ids(response.json()) == without_ids(named(planned, MEMBER, query).json())
    assert response.headers["x-router-expert"] == MEMBER
    assert response.headers["x-router-attempts"] == str(len(PLANS[plan].ask))
    assert float(response.headers["x-router-score"]) > 0.8


def test_the_else_expert_answers_what_is_rejected(planned: Graph) -> None:
    query, response = with_verdict(planned, "check", "false")

    assert without_ids(response.json()) == without_ids(named(planned, LAST, query).json())
    assert response.headers["x-router-expert"] == LAST
    assert response.headers["x-router-attempts"] == "2"
    assert response.headers["x-router-reason"] == "routed"


def test_a_vote_returns_one_answer(planned: Graph) -> None:
    query, response = with_verdict(planned, "vote", "true")

    body = response.json()
    samples = [answer_of(EXPERTS, MEMBER, query, sample) for sample in range(3)]
    assert [choice["index"] for choice in body["choices"]] == [0]
    assert body["choices"][0]["message"]["content"] in samples
    assert body["choices"][0]["logprobs"] is None
    assert body["usage"]["completion_tokens"] == 5


@pytest.mark.parametrize("with_usage", [False, True])
@pytest.mark.parametrize("plan", ["check", "agree", "hold"])
def test_a_stream_through_a_plan_has_an_experts_chunks(planned: Graph, plan: str, with_usage: bool) -> None:
    more = {"stream": True, **({"stream_options": {"include_usage": True}} if with_usage else {})}
    query, _ = with_verdict(planned, plan, "true", **more)
    with openai.OpenAI(base_url=f"{planned.url}/v1", api_key=planned.key, max_retries=0) as client:

        def chunks(model: str, routing: dict[str, Any]) -> list[Any]:
            body = fields(plan, query, **more)
            extra = {"simulate": body.pop("simulate"), "routing": routing}
            del body["routing"]
            with client.chat.completions.create(**{**body, "model": model}, extra_body=extra) as stream:
                return [without_ids(chunk.model_dump(exclude_unset=True)) for chunk in stream]

        through, direct = chunks("auto", fields(plan)["routing"]), chunks(MEMBER, {})

    assert through == direct
    assert [chunk for chunk in through if chunk.get("usage")] == through[-1:] * with_usage


def test_log_probabilities_of_the_client_leave_no_plan(planned: Graph) -> None:
    views = decision(planned, logprobs=True)["plans"]
    response = post(planned, fields("check", logprobs=True))

    assert views["check"]["excluded_because"] == "the request has log-probabilities of its own"
    assert "x-router-plan" not in response.headers
    assert len(response.json()["choices"][0]["logprobs"]["content"]) == 5


def test_lists_name_plans_as_well_as_experts(planned: Graph) -> None:
    body = fields("check")
    body["routing"] = {"cost_weight": 0.0, "experts": [*EXPERTS, "agree"]}
    views = post(planned, body, "/v1/route").json()

    assert views["ranking"][0] == "agree"
    assert views["plans"]["check"]["excluded_because"] == "not in routing.experts"
    body["routing"] = {"exclude": ["nothing"]}
    assert post(planned, body, "/v1/route").json()["error"]["code"] == "unknown_expert"


def record_of(graph: Graph, response: httpx.Response) -> DecisionRecord | None:
    for file in log_files(graph.decisions):
        for record in read_records(file):
            if isinstance(record, DecisionRecord) and record.request_id == response.headers["x-request-id"]:
                return record
    return None


def samples(graph: Graph, family: str, **labels: str) -> float:
    time.sleep(1.1)  # the ingress caches metrics for a second
    found = scraped(graph).get(family)
    wanted = labels.items()
    rows = [] if found is None else found.samples
    return sum(
        row.value for row in rows if wanted <= row.labels.items() and not row.name.endswith("_created")
    )


def test_record_metrics_and_key_count_every_call(planned: Graph) -> None:
    key, id_ = planned.new_key()
    before = samples(planned, "to_router_plans", plan="check", result="rejected")
    query, response = with_verdict(planned, "check", "false")
    spent = samples(planned, "to_router_key_cost_usd", key=id_)
    post(planned, fields("check", query), key=key)

    assert until(lambda: record_of(planned, response) is not None, 10)
    record = record_of(planned, response)
    assert record is not None
    assert record.plan is not None
    assert (record.plan.name, record.plan.accepted, record.plan.result) == ("check", False, "rejected")
    assert record.plan.p_right is not None
    assert record.plan.p_right < 0.8
    assert record.plan.signals is not None
    assert record.plan.signals["mean_logprob"] is not None
    member, last = record.attempts
    assert (member.expert, member.outcome, member.completion_tokens) == (MEMBER, "rejected", 5)
    assert (last.expert, last.outcome) == (LAST, "answered")
    assert samples(planned, "to_router_plans", plan="check", result="rejected") >= before + 1
    cheap, expensive = (0.05, 0.10), (0.50, 1.00)
    usage = response.json()["usage"]
    both = sum(
        (usage["prompt_tokens"] * price[0] + usage["completion_tokens"] * price[1]) / 1e6
        for price in (cheap, expensive)
    )
    assert samples(planned, "to_router_key_cost_usd", key=id_) - spent == pytest.approx(both)


SLOW = {"ttft_ms": 400.0, "tokens_per_s": 10.0}
PHASES = {
    "members hold": ("agree", "true", 0.2, {MEMBER: SLOW, EXPERTS[1]: SLOW}),
    "a held stream": ("hold", "true", 0.5, {MEMBER: SLOW}),
    "a live stream": ("hold", "true", 0.75, {MEMBER: SLOW}),
    "the else expert works": ("check", "false", 0.4, {LAST: SLOW}),
}


@pytest.mark.parametrize("phase", PHASES)
def test_nothing_generates_after_a_client_left_a_plan(planned: Graph, watch: Watch, phase: str) -> None:
    plan, verdict, after_s, slow = PHASES[phase]
    stream = {"stream": True} if plan == "hold" else {}
    queries = [with_verdict(planned, plan, verdict, **stream)[0] for _ in range(3)]

    async def leave(client: httpx.AsyncClient, query: str) -> None:
        try:
            async with asyncio.timeout(after_s):
                body = fields(plan, query, **stream, **copy.deepcopy(slow))
                async with client.stream("POST", CHAT, json=body) as response:
                    async for _ in response.aiter_bytes():
                        pass
        except TimeoutError:
            return
        raise AssertionError("the response ended before the client left")

    async def all_leave() -> None:
        headers = {"authorization": f"Bearer {planned.key}"}
        limits = httpx.Limits(max_keepalive_connections=0)
        async with httpx.AsyncClient(base_url=planned.url, headers=headers, limits=limits) as client:
            await asyncio.gather(*(leave(client, query) for query in queries))

    asyncio.run(all_leave())

    assert watch.until_idle(within_s=2.0)


FAULTS: tuple[dict[str, Any], ...] = (
    {MEMBER: {"failures": [{"mode": "raise"}]}},
    {EXPERTS[1]: {"failures": [{"mode": "status", "status": 503}]}},
    {MEMBER: {"failures": [{"mode": "half_stream", "after_tokens": 1}]}},
    {LAST: {"failures": [{"mode": "raise"}]}},
    {LAST: {"failures": [{"mode": "half_stream", "after_tokens": 0}]}},
    {EXPERTS[1]: {"failures": [{"mode": "garbage"}]}},
)
"""A member before and after its first byte, and the `else` expert; every fourth request has one of them."""


def faulty(number: int) -> dict[str, Any]:
    plan = list(PLANS)[number % len(PLANS)]
    fault = copy.deepcopy(FAULTS[number // 4 % len(FAULTS)]) if number % 8 < 2 else {}
    stream = {"stream": True} if plan == "hold" or number % 16 < 8 else {}
    body = fields(plan, "", **stream, **fault)
    del body["messages"]
    return body


def under_faults(graph: Graph, requests: int, lanes: int, at: dict[int, Callable[[], Any]]) -> None:
    """Send requests through plans while experts fail and die; none is lost or mixed up."""
    key, _ = graph.new_key(requests_per_minute=1_000_000)
    beginning = f"[simulated expert {MEMBER}] The answer is "  # of a vote any sample may be returned
    tally = run(
        graph,
        lambda load: load.steady(requests, lanes, faulty, at),
        key=key,
        expected=lambda expert, query: beginning if expert == MEMBER else answer_of(EXPERTS, expert, query),
    )

    assert tally.lost == tally.mixed == []
    assert tally.rejected == {}
    assert tally.answered + tally.interrupted == requests
    # Streams that had begun: of an `else` expert, or of a process that was killed.
    assert tally.interrupted <= requests // 16 + 2 * lanes
    assert tally.accepted["true"] > requests // 8
    assert tally.accepted["false"] > requests // 16


def test_no_request_is_lost_where_members_and_else_fail(planned: Graph, watch: Watch) -> None:
    """A thousand requests, and more processes that die, in `make test-slow`."""
    wait_until_calm(planned)
    under_faults(planned, 128, 8, {80: lambda: planned.kill_one(f"expert-{MEMBER}:Expert")})

    assert watch.until_idle(within_s=2.0)


@pytest.mark.slow
def test_no_request_of_a_thousand_is_lost_where_experts_die(planned: Graph, watch: Watch) -> None:
    wait_until_calm(planned)
    deaths = {
        number: lambda name=name: planned.kill_one(f"expert-{name}:Expert")  # type: ignore[misc]
        for number, name in ((150, MEMBER), (350, LAST), (550, EXPERTS[1]), (750, MEMBER))
    }
    under_faults(planned, 1000, 8, deaths)
    assert watch.until_idle(within_s=2.0)

    drawn = random.Random(0)

    async def one(client: httpx.AsyncClient, number: int) -> None:
        slow = dict.fromkeys(EXPERTS, SLOW)
        plan = list(PLANS)[number % len(PLANS)]
        body = fields(plan, **({"stream": True} if plan == "hold" else {}), **slow)
        with contextlib.suppress(TimeoutError, httpx.TransportError):
            async with asyncio.timeout(drawn.uniform(0.0, 1.5)):
                await client.post(CHAT, json=body)

    async def all_leave() -> None:
        headers = {"authorization": f"Bearer {planned.key}"}
        async with httpx.AsyncClient(base_url=planned.url, headers=headers, timeout=30) as client:
            await asyncio.gather(*(one(client, number) for number in range(50)))

    for _ in range(4):
        asyncio.run(all_leave())
        began = time.monotonic()
        assert watch.until_idle(within_s=2.0)
        sys.stdout.write(f"engines idle {time.monotonic() - began:.2f} s after the last client left\n")
