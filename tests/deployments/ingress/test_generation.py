"""The request pipeline: admission, experts scaled to zero, browsers, clients that disconnect."""

import asyncio
from typing import Any

import orjson
import pytest

from deployments.config import IngressArgs, IngressConfig
from deployments.contracts.errors import ExpertTimeout, ExpertUnavailable
from deployments.contracts.routing_options import RoutingOptions
from tests.deployments.asgi_client import Exchange
from tests.deployments.fakes import EVENTS, FakeExpert, event
from tests.deployments.harness import CHAT, HELLO, IngressHarness, settle

# --- streams that break


@pytest.mark.parametrize(
    "ending",
    [
        [ExpertUnavailable("small", "died")],
        [b'data: {"error": {"message": "engine died", "code": 500}}\n\n', b"data: [DONE]\n\n"],
        [],
    ],
    ids=["died", "an error event", "no end"],
)
async def test_streams_that_break_midway_open_the_breaker(harness: IngressHarness, ending: list[Any]) -> None:
    expert = harness.experts["small"]
    expert.headers = EVENTS
    expert.parts = [event("small", "x"), event("small", "y"), *ending]
    for number in range(5):
        messages = [{"role": "user", "content": str(number)}]
        response = await harness.ask(stream=True, messages=messages)
        assert response.headers["x-router-expert"] == "small"
    text = (await harness.http.get("/metrics")).text

    assert harness.api.registry.experts["small"].breaker.state == "open"
    assert 'to_router_requests_total{kind="chat",outcome="broken"}' in text


async def test_one_request_whose_streams_break_opens_no_breaker(harness: IngressHarness) -> None:
    harness.experts["small"].headers = EVENTS
    harness.experts["small"].parts = [event("small", "x"), ExpertUnavailable("small", "died")]
    for _ in range(10):
        await harness.ask(stream=True)

    assert harness.api.registry.experts["small"].breaker.state == "closed"


async def test_a_word_error_in_a_stream_is_no_failure(harness: IngressHarness) -> None:
    harness.experts["small"].headers = EVENTS
    last = b'data: {"choices": [], "error": null}\n\n'
    harness.experts["small"].parts = [event("small", '{"error": 1}'), last, b"data: [DONE]\n\n"]
    for number in range(6):
        await harness.ask(stream=True, messages=[{"role": "user", "content": str(number)}])

    assert harness.api.registry.experts["small"].breaker.state == "closed"


# --- admission


async def test_beyond_slots_and_queue_the_status_is_429_with_retry_after() -> None:
    harness = IngressHarness(limits={"max_in_flight": 1, "max_queued": 1})
    waits = asyncio.Event()
    harness.experts["small"].parts = [waits.wait]
    first = asyncio.create_task(harness.ask())
    await settle()
    harness.experts["small"].parts = []
    second = asyncio.create_task(harness.ask())
    await settle()
    third = await harness.ask()

    assert third.status_code == 429
    assert third.json()["error"]["code"] == "queue_full"
    assert int(third.headers["retry-after"]) >= 1
    assert int(third.headers["retry-after-ms"]) >= 1
    assert (harness.api.queue.held, harness.api.queue.queued) == (1, 1)
    first.cancel()
    assert (await second).status_code == 200
    assert (harness.api.queue.held, harness.api.queue.queued) == (0, 0)


async def test_a_wait_beyond_the_deadline_is_504_and_beyond_the_queue_503() -> None:
    harness = IngressHarness(limits={"max_in_flight": 1, "max_queue_wait_s": 0.02})
    harness.experts["small"].parts = [asyncio.Event().wait]
    first = asyncio.create_task(harness.ask())
    await settle()

    impatient = await harness.ask(routing={"timeout_s": 0.01})
    patient = await harness.ask()
    assert (impatient.status_code, impatient.headers["x-should-retry"]) == (504, "false")
    assert (patient.status_code, patient.json()["error"]["code"]) == (503, "queue_timeout")
    assert "retry-after" in patient.headers
    first.cancel()


@pytest.mark.parametrize("status", [400, 404, 503])
async def test_every_error_releases_its_slot(harness: IngressHarness, status: int) -> None:
    fields = {400: {"routing": {"experts": []}}, 404: {"model": "nobody"}, 503: {"model": "small"}}[status]
    harness.experts["small"].parts = [ExpertUnavailable("small", "gone")]
    response = await harness.ask(**fields)

    assert response.status_code == status
    assert harness.api.queue.held == 0
    assert {name: expert.slots.held for name, expert in harness.api.registry.experts.items()} == {
        "small": 0,
        "large": 0,
    }


async def test_a_slot_is_held_until_the_last_byte_of_a_stream(harness: IngressHarness) -> None:
    more = asyncio.Event()
    harness.experts["small"].parts = [event("small", "x"), event("small", "y"), b"data: [DONE]\n\n"]
    harness.experts["small"].headers = EVENTS
    original = harness.experts["small"]._rest

    async def slow(parts: list[Any]) -> Any:
        await more.wait()
        async for part in original(parts):
            yield part

    harness.experts["small"]._rest = slow  # type: ignore[method-assign]
    exchange = harness.exchange(stream=True)
    await exchange.body_began.wait()
    assert (harness.api.queue.held, harness.api.registry.experts["small"].slots.held) == (1, 1)
    more.set()
    await exchange.task

    assert (harness.api.queue.held, harness.api.registry.experts["small"].slots.held) == (0, 0)
    assert exchange.body.endswith(b"data: [DONE]\n\n")


async def test_an_experts_own_bound_sends_the_overflow_to_the_next() -> None:
    harness = IngressHarness(small={"max_in_flight": 1})
    harness.experts["small"].parts = [asyncio.Event().wait]
    first = asyncio.create_task(harness.ask())
    await settle()
    second = await harness.ask()

    assert second.headers["x-router-expert"] == "large"
    assert second.headers["x-router-reason"] == "fallback_expert"
    first.cancel()


# --- clients that leave


@pytest.mark.parametrize("phase", ["upload", "queue", "route", "first byte"])
async def test_a_client_that_leaves_before_the_first_byte_leaves_nothing_behind(phase: str) -> None:
    harness = IngressHarness(limits={"max_in_flight": 1})
    never = asyncio.Event()
    body = orjson.dumps(HELLO)
    pieces: list[bytes | None] = [body[:5], None] if phase == "upload" else [body]
    if phase == "queue":
        await harness.api.queue.acquire("interactive", 1)
    if phase == "route":

        async def never_decides(*asked: Any) -> Any:
            await never.wait()

        harness.router.decide = never_decides  # type: ignore[method-assign]
    if phase == "first byte":
        harness.experts["small"].parts = [never.wait]
    exchange = Exchange(harness.app, CHAT, *pieces)
    await settle()
    assert not exchange.task.done()
    await exchange.disconnect()

    assert exchange.sent == []
    assert harness.api.queue.held == (1 if phase == "queue" else 0)
    assert harness.api.queue.queued == 0
    assert harness.api.registry.experts["small"].slots.held == 0


async def test_a_client_that_leaves_midway_closes_the_experts_stream(harness: IngressHarness) -> None:
    never = asyncio.Event()

    class Endless(FakeExpert):
        async def _rest(self, parts: list[Any]) -> Any:
            try:
                await never.wait()
                yield b""
            finally:
                self.closed += 1

    harness.experts["small"] = Endless("small", event("small", "x"), b"more", headers=EVENTS)
    harness.api.registry.experts["small"].client = harness.experts["small"]
    exchange = harness.exchange(stream=True)
    await exchange.body_began.wait()
    await settle()
    await exchange.disconnect()

    assert harness.experts["small"].closed == 1
    assert harness.api.queue.held == 0


async def test_a_slow_upload_is_408_in_the_envelope() -> None:
    harness = IngressHarness(args=IngressArgs(upload_timeout_s=0.05))
    exchange = Exchange(harness.app, CHAT, b'{"mo', None)
    await exchange.task

    assert exchange.status == 408
    assert orjson.loads(exchange.body)["error"]["code"] == "upload_timeout"


# --- experts scaled to zero


async def test_an_expert_at_zero_is_called_last_and_scaled_up_once(harness: IngressHarness) -> None:
    harness.scale_to_zero("small")
    harness.experts["small"].parts = [asyncio.Event().wait]
    responses = [await harness.ask() for _ in range(3)]
    await settle()

    assert {response.headers["x-router-expert"] for response in responses} == {"large"}
    assert {response.headers["x-router-reason"] for response in responses} == {"routed"}
    assert [asked[:2] for asked in harness.experts["small"].asked] == [("GET", "/v1/models")]


async def test_an_expert_at_zero_that_is_not_ranked_first_stays_there(harness: IngressHarness) -> None:
    harness.scale_to_zero("large")
    await harness.ask()
    await settle()

    assert harness.experts["large"].asked == []


async def test_an_expert_at_zero_with_cold_wait_gets_its_requests() -> None:
    harness = IngressHarness(small={"cold": "wait"})
    harness.scale_to_zero("small")

    assert (await harness.ask()).headers["x-router-expert"] == "small"


async def test_with_all_at_zero_the_best_is_waited_for(harness: IngressHarness) -> None:
    harness.scale_to_zero(*harness.experts)

    assert (await harness.ask()).headers["x-router-expert"] == "small"


async def test_an_expert_that_does_not_start_in_time_is_503_starting(harness: IngressHarness) -> None:
    harness.scale_to_zero(*harness.experts)
    for name, expert in harness.experts.items():
        expert.parts = [ExpertTimeout(name, "late")]
    response = await harness.ask()

    assert (response.status_code, response.json()["error"]["code"]) == (503, "expert_starting")
    assert int(response.headers["retry-after"]) > 1


@pytest.mark.parametrize("why", ["deploying", "application 'expert-small' is not deployed"])
async def test_a_named_expert_on_its_way_up_is_503_starting_at_once(
    harness: IngressHarness, why: str
) -> None:
    state = harness.api.registry.experts["small"].state
    state.running, state.why_not_ready = 0, why
    response = await harness.ask(model="small")

    assert (response.status_code, response.json()["error"]["code"]) == (503, "expert_starting")
    assert why in response.json()["error"]["message"]
    assert 10 <= int(response.headers["retry-after"]) <= 12
    assert harness.experts["small"].asked == []
    named = {"model": "small", "routing": {"fallback": True}}
    instead = (await harness.ask(**named)).headers
    assert (instead["x-router-expert"], instead["x-router-reason"]) == ("large", "fallback_expert")
    told = (await harness.http.post("/v1/route", json={**HELLO, **named})).json()
    assert (told["expert"], told["reason"]) == ("large", "fallback_expert")
    assert told["experts"]["large"]["eligible"]


async def test_route_agrees_with_the_request_about_experts_at_zero(harness: IngressHarness) -> None:
    harness.scale_to_zero("small")
    told = (await harness.http.post("/v1/route", json=HELLO)).json()

    assert told["ranking"] == ["large", "small"]
    assert told["expert"] == (await harness.ask()).headers["x-router-expert"]


@pytest.mark.parametrize(
    "body", [{"prompt": "hello"}, {"input": "hello"}, {"input": ["hello"]}, {"messages": HELLO["messages"]}]
)
async def test_route_reads_every_form_of_a_query(body: dict[str, Any]) -> None:
    harness = IngressHarness(small={"capabilities": ["embeddings"]})
    response = await harness.http.post("/v1/route", json={"model": "auto", **body})

    assert response.status_code == 200
    assert harness.router.asked[-1].query == "hello"


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"input": ["hello"]}, "/v1/embeddings"),
        ({"input": "hello", "encoding_format": "float"}, "/v1/embeddings"),
        ({"system": "Be brief.", "max_tokens": 5, "messages": HELLO["messages"]}, "/v1/messages"),
    ],
)
async def test_route_decides_as_the_endpoint_of_the_same_body_does(body: dict[str, Any], path: str) -> None:
    harness = IngressHarness(large={"capabilities": ["embeddings"]})
    await harness.http.post("/v1/route", json={"model": "auto", **body})
    await harness.http.post(path, json={"model": "auto", **body})

    told, done = harness.router.asked[-2:]
    assert (told.query, told.excluded, told.prompt_tokens) == (done.query, done.excluded, done.prompt_tokens)


async def test_an_expert_that_only_the_policy_knows_is_never_called(harness: IngressHarness) -> None:
    harness.router.preferred = ("stranger", "small", "large")
    known = await harness.ask()
    harness.router.preferred = ("stranger",)
    unknown = await harness.ask()

    assert (known.headers["x-router-expert"], known.headers["x-router-reason"]) == ("small", "routed")
    assert (unknown.status_code, unknown.headers["x-router-reason"]) == (200, "fallback_router")


# --- browsers, description, retries


async def test_browsers_of_other_origins_are_rejected_unless_configured() -> None:
    closed, opened = IngressHarness(), IngressHarness(cors={"origins": ["https://chat.example"]})
    origin = {"origin": "https://chat.example"}

    assert "access-control-allow-origin" not in (await closed.ask(origin)).headers
    answer = await opened.ask(origin)
    assert answer.headers["access-control-allow-origin"] == "https://chat.example"
    assert "x-router-expert" in answer.headers["access-control-expose-headers"]
    asked = {**origin, "access-control-request-method": "POST"}
    assert (await opened.http.options(CHAT, headers=asked)).status_code == 200


async def test_the_published_description_names_every_path_and_routing_field(harness: IngressHarness) -> None:
    document = (await harness.http.get("/openapi.json")).json()

    assert {CHAT, "/v1/route", "/v1/models", "/ready", "/tokenize"} <= document["paths"].keys()
    assert (
        document["components"]["schemas"]["Routing"]["properties"].keys()
        == RoutingOptions.model_fields.keys()
    )


async def test_a_client_that_retries_gets_fewer_attempts(harness: IngressHarness) -> None:
    for name, expert in harness.experts.items():
        expert.parts = [ExpertUnavailable(name, "gone")]
    await harness.ask({"x-stainless-retry-count": "2"})

    assert [len(expert.asked) for expert in harness.experts.values()] == [1, 0]


@pytest.mark.parametrize("value", ["nan", "-1", "1e400", "abc", "0"])
async def test_a_senseless_client_deadline_is_as_good_as_none(harness: IngressHarness, value: str) -> None:
    headers = {"x-stainless-read-timeout": value, "x-stainless-retry-count": value}

    assert (await harness.ask(headers)).status_code == 200


async def test_hostile_header_bytes_reach_no_expert(harness: IngressHarness) -> None:
    headers = [(b"traceparent", b"\xff\xfe"), (b"accept", b"a" * 5000), (b"tracestate", b"ok=1")]
    exchange = Exchange(harness.app, CHAT, orjson.dumps(HELLO), headers=headers)
    await exchange.task

    assert exchange.status == 200
    assert harness.experts["small"].asked[0][2].keys() == {b"tracestate", b"content-type", b"x-request-id"}


async def test_a_new_configuration_keeps_what_was_learnt(harness: IngressHarness) -> None:
    harness.api.registry.experts["small"].latency.observe("streaming", 0.5)
    gate = harness.api.queue
    raw = harness.api.registry.config.model_dump()
    raw["limits"]["max_in_flight"] = 3
    harness.api.apply(IngressConfig.model_validate(raw))

    assert harness.api.registry.experts["small"].latency.ttft_ms == 500
    assert harness.api.queue is gate
    assert gate.try_acquire()
    assert gate.try_acquire()
    assert gate.try_acquire()
    assert not gate.try_acquire()


async def test_a_clients_read_timeout_bounds_silence_and_no_stream(harness: IngressHarness) -> None:
    expert = harness.experts["small"]
    expert.parts = [event("small", "a"), event("small", "b"), b"data: [DONE]\n\n"]
    expert.headers, expert._rest = EVENTS, slowly  # type: ignore[method-assign]
    response = await harness.ask({"x-stainless-read-timeout": "0.05"}, stream=True)

    assert response.content.endswith(b"data: [DONE]\n\n")
    assert b"deadline_exceeded" not in response.content


async def slowly(parts: list[Any]) -> Any:
    """First an event, then a silence that is longer than the client's read timeout in all."""
    for part in parts:
        yield part
        await asyncio.sleep(0.04)
