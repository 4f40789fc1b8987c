"""The door as a whole: admission, keys, sleeping experts, browsers, clients that leave."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from deployments.ask import ROUTING_FIELDS
from deployments.config import IngressConfig
from deployments.errors import ExpertTimeout, ExpertUnavailable
from deployments.keys import KeyFile, KeyLimits, KeyRing, new_key, write_keys
from deployments.ledger import Ledger, Sync, Synced
from deployments.ledger_client import LedgerClient
from tests.deployments.asgi_client import Exchange
from tests.deployments.fakes import EVENTS, FakeExpert, event
from tests.deployments.house import CHAT, HELLO, House, settle


class InProcess:
    """The way to a ledger in this process."""

    def __init__(self) -> None:
        self.ledger = Ledger(lambda: 1_000.0)

    async def sync(self, told: Sync, timeout_s: float) -> Synced:
        return self.ledger.sync(told)


@pytest.fixture
async def house() -> AsyncIterator[House]:
    opened = House()
    yield opened
    await opened.http.aclose()


# --- admission


async def test_beyond_places_and_queue_the_answer_is_429_with_a_time_to_come_back() -> None:
    house = House(limits={"max_in_flight": 1, "max_queued": 1})
    waits = asyncio.Event()
    house.experts["small"].parts = [waits.wait]
    first = asyncio.create_task(house.ask())
    await settle()
    house.experts["small"].parts = []
    second = asyncio.create_task(house.ask())
    await settle()
    third = await house.ask()

    assert third.status_code == 429
    assert third.json()["error"]["code"] == "queue_full"
    assert int(third.headers["retry-after"]) >= 1
    assert int(third.headers["retry-after-ms"]) >= 1
    assert (house.api.gate.held, house.api.gate.queued) == (1, 1)
    first.cancel()
    assert (await second).status_code == 200
    assert (house.api.gate.held, house.api.gate.queued) == (0, 0)


async def test_who_waits_longer_than_its_deadline_gets_504_and_longer_than_the_queue_503() -> None:
    house = House(limits={"max_in_flight": 1, "max_queue_wait_s": 0.02})
    house.experts["small"].parts = [asyncio.Event().wait]
    first = asyncio.create_task(house.ask())
    await settle()

    impatient = await house.ask(routing={"timeout_s": 0.01})
    patient = await house.ask()
    assert (impatient.status_code, impatient.headers["x-should-retry"]) == (504, "false")
    assert (patient.status_code, patient.json()["error"]["code"]) == (503, "queue_timeout")
    assert "retry-after" in patient.headers
    first.cancel()


@pytest.mark.parametrize("status", [400, 404, 503])
async def test_every_refusal_gives_its_place_back(house: House, status: int) -> None:
    fields = {400: {"routing": {"experts": []}}, 404: {"model": "nobody"}, 503: {"model": "small"}}[status]
    house.experts["small"].parts = [ExpertUnavailable("small", "gone")]
    response = await house.ask(**fields)

    assert response.status_code == status
    assert house.api.gate.held == 0
    assert {name: gate.held for name, gate in house.api.fleet.gates.items()} == {"small": 0, "large": 0}


async def test_a_place_is_held_until_the_last_byte_of_a_stream(house: House) -> None:
    more = asyncio.Event()
    house.experts["small"].parts = [event("small", "x"), event("small", "y"), b"data: [DONE]\n\n"]
    house.experts["small"].headers = EVENTS
    original = house.experts["small"]._rest

    async def slow(parts: list[Any]) -> Any:
        await more.wait()
        async for part in original(parts):
            yield part

    house.experts["small"]._rest = slow  # type: ignore[method-assign]
    exchange = house.exchange(stream=True)
    await exchange.body_began.wait()
    assert (house.api.gate.held, house.api.fleet.gates["small"].held) == (1, 1)
    more.set()
    await exchange.task

    assert (house.api.gate.held, house.api.fleet.gates["small"].held) == (0, 0)
    assert exchange.body.endswith(b"data: [DONE]\n\n")


async def test_an_experts_own_bound_sends_the_overflow_to_the_next() -> None:
    house = House(small={"max_in_flight": 1})
    house.experts["small"].parts = [asyncio.Event().wait]
    first = asyncio.create_task(house.ask())
    await settle()
    second = await house.ask()

    assert second.headers["x-router-expert"] == "large"
    assert second.headers["x-router-reason"] == "fallback_expert"
    first.cancel()


# --- clients that leave


@pytest.mark.parametrize("phase", ["upload", "queue", "route", "first byte"])
async def test_a_client_that_leaves_before_the_first_byte_leaves_nothing_behind(phase: str) -> None:
    house = House(limits={"max_in_flight": 1})
    never = asyncio.Event()
    body = orjson.dumps(HELLO)
    pieces: list[bytes | None] = [body[:5], None] if phase == "upload" else [body]
    if phase == "queue":
        await house.api.gate.enter("interactive", 1)
    if phase == "route":

        async def never_decides(*asked: Any) -> Any:
            await never.wait()

        house.router.decide = never_decides  # type: ignore[method-assign]
    if phase == "first byte":
        house.experts["small"].parts = [never.wait]
    exchange = Exchange(house.app, CHAT, *pieces)
    await settle()
    assert not exchange.task.done()
    await exchange.leave()

    assert exchange.sent == []
    assert house.api.gate.held == (1 if phase == "queue" else 0)
    assert house.api.gate.queued == 0
    assert house.api.fleet.gates["small"].held == 0


async def test_a_client_that_leaves_midway_closes_the_experts_stream(house: House) -> None:
    never = asyncio.Event()

    class Endless(FakeExpert):
        async def _rest(self, parts: list[Any]) -> Any:
            try:
                await never.wait()
                yield b""
            finally:
                self.closed += 1

    house.experts["small"] = Endless("small", event("small", "x"), b"more", headers=EVENTS)
    house.api.fleet.dispatcher.clients["small"] = house.experts["small"]  # type: ignore[index]
    exchange = house.exchange(stream=True)
    await exchange.body_began.wait()
    await settle()
    await exchange.leave()

    assert house.experts["small"].closed == 1
    assert house.api.gate.held == 0


async def test_a_slow_upload_is_408_in_the_envelope(house: House) -> None:
    exchange = Exchange(house.app, CHAT, b'{"mo', None)
    await exchange.task

    assert exchange.status == 408
    assert orjson.loads(exchange.body)["error"]["code"] == "upload_timeout"


# --- sleeping experts


async def test_a_sleeping_expert_gives_way_to_the_next_and_is_woken_once(house: House) -> None:
    house.sleeping("small")
    house.experts["small"].parts = [asyncio.Event().wait]
    responses = [await house.ask() for _ in range(3)]
    await settle()

    assert {response.headers["x-router-expert"] for response in responses} == {"large"}
    assert {response.headers["x-router-reason"] for response in responses} == {"routed"}
    assert [asked[:2] for asked in house.experts["small"].asked] == [("GET", "/v1/models")]


async def test_an_expert_that_is_not_wanted_is_left_asleep(house: House) -> None:
    house.sleeping("large")
    await house.ask()
    await settle()

    assert house.experts["large"].asked == []


async def test_a_sleeping_expert_told_to_be_waited_for_gets_its_queries() -> None:
    house = House(small={"cold": "wait"})
    house.sleeping("small")

    assert (await house.ask()).headers["x-router-expert"] == "small"


async def test_when_all_sleep_the_best_is_waited_for(house: House) -> None:
    house.sleeping(*house.experts)

    assert (await house.ask()).headers["x-router-expert"] == "small"


async def test_an_expert_that_does_not_wake_up_in_time_is_503_starting(house: House) -> None:
    house.sleeping(*house.experts)
    for name, expert in house.experts.items():
        expert.parts = [ExpertTimeout(name, "late")]
    response = await house.ask()

    assert (response.status_code, response.json()["error"]["code"]) == (503, "expert_starting")
    assert int(response.headers["retry-after"]) > 1


@pytest.mark.parametrize("why", ["deploying", "application 'expert-small' is not deployed"])
async def test_a_named_expert_on_its_way_up_is_503_starting_at_once(house: House, why: str) -> None:
    state = house.api.directory.experts["small"]
    state.running, state.why_not_ready = 0, why
    response = await house.ask(model="small")

    assert (response.status_code, response.json()["error"]["code"]) == (503, "expert_starting")
    assert why in response.json()["error"]["message"]
    assert response.headers["retry-after"] == "10"
    assert house.experts["small"].asked == []
    assert (await house.ask(model="small", routing={"fallback": True})).headers["x-router-expert"] == "large"


async def test_route_agrees_with_the_request_about_sleeping_experts(house: House) -> None:
    house.sleeping("small")
    told = (await house.http.post("/v1/route", json=HELLO)).json()

    assert told["ranking"] == ["large", "small"]
    assert told["expert"] == (await house.ask()).headers["x-router-expert"]


@pytest.mark.parametrize("body", [{"prompt": "hello"}, {"input": "hello"}, {"messages": HELLO["messages"]}])
async def test_route_reads_every_form_of_a_query(house: House, body: dict[str, Any]) -> None:
    response = await house.http.post("/v1/route", json={"model": "auto", **body})

    assert response.status_code == 200
    assert house.router.asked[-1].query == "hello"


# --- keys


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def with_keys(house: House, tmp_path: Path, **settings: Any) -> str:
    key, record = new_key("team", **settings)
    write_keys(tmp_path / "keys.json", KeyFile(keys=[record]))
    house.api.keys = KeyRing(tmp_path / "keys.json")
    house.api.keys.refresh()
    house.api.ledger = LedgerClient("a", InProcess(), lambda: 1_000.0)
    return key


async def test_with_keys_every_endpoint_but_health_asks_for_one(house: House, tmp_path: Path) -> None:
    key = with_keys(house, tmp_path)
    refused = [await house.http.post(path, json=HELLO) for path in (CHAT, "/v1/route", "/v1/embeddings")]
    refused.append(await house.http.get("/v1/models"))

    assert {response.status_code for response in refused} == {401}
    assert {response.json()["error"]["code"] for response in refused} == {"invalid_api_key"}
    assert {response.headers["www-authenticate"] for response in refused} == {"Bearer"}
    assert (await house.http.get("/health")).status_code == 200
    assert (await house.ask(bearer(key))).status_code == 200
    assert not any(b"authorization" in asked[2] for asked in house.experts["small"].asked)


async def test_a_key_reaches_only_its_experts(house: House, tmp_path: Path) -> None:
    headers = bearer(with_keys(house, tmp_path, experts=["large"]))

    assert (await house.ask(headers)).headers["x-router-expert"] == "large"
    named = await house.ask(headers, model="small")
    assert (named.status_code, named.json()["error"]["code"]) == (403, "model_not_allowed")
    models = (await house.http.get("/v1/models", headers=headers)).json()["data"]
    assert [card["id"] for card in models] == ["auto", "auto-cheap", "large"]


async def test_a_keys_preset_is_what_auto_means_and_the_body_outweighs_it(
    house: House, tmp_path: Path
) -> None:
    headers = bearer(with_keys(house, tmp_path, preset="auto-cheap"))
    await house.ask(headers)
    await house.ask(headers, routing={"cost_weight": 0.0})

    assert [request.preferences.cost_weight for request in house.router.asked] == [1.0, 0.0]


async def test_a_keys_limit_is_429_with_a_time_to_come_back(house: House, tmp_path: Path) -> None:
    headers = bearer(with_keys(house, tmp_path, limits=KeyLimits(requests_per_minute=2)))
    statuses = [(await house.ask(headers)).status_code for _ in range(3)]
    refused = await house.ask(headers)

    assert statuses == [200, 200, 429]
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert 30 < int(refused.headers["retry-after"]) <= 61


async def test_a_spent_budget_tells_clients_not_to_retry(house: House, tmp_path: Path) -> None:
    headers = bearer(with_keys(house, tmp_path, limits=KeyLimits(usd_per_day=1e-9)))
    refused = await house.ask(headers)

    assert refused.json()["error"]["code"] == "budget_exceeded"
    assert refused.headers["x-should-retry"] == "false"


async def test_a_limit_is_charged_with_what_was_used_not_with_what_was_reserved(
    house: House, tmp_path: Path
) -> None:
    headers = bearer(with_keys(house, tmp_path, limits=KeyLimits(tokens_per_minute=600)))
    statuses = [(await house.ask(headers)).status_code for _ in range(5)]

    assert statuses == [200] * 5


# --- browsers, description, retries


async def test_browsers_of_other_origins_are_refused_unless_configured() -> None:
    closed, opened = House(), House(cors={"origins": ["https://chat.example"]})
    origin = {"origin": "https://chat.example"}

    assert "access-control-allow-origin" not in (await closed.ask(origin)).headers
    answer = await opened.ask(origin)
    assert answer.headers["access-control-allow-origin"] == "https://chat.example"
    assert "x-router-expert" in answer.headers["access-control-expose-headers"]
    asked = {**origin, "access-control-request-method": "POST"}
    assert (await opened.http.options(CHAT, headers=asked)).status_code == 200


async def test_the_published_description_names_every_path_and_routing_field(house: House) -> None:
    document = (await house.http.get("/openapi.json")).json()

    assert {CHAT, "/v1/route", "/v1/models", "/ready", "/tokenize"} <= document["paths"].keys()
    assert document["components"]["schemas"]["Routing"]["properties"].keys() == ROUTING_FIELDS


async def test_a_client_that_retries_gets_fewer_attempts(house: House) -> None:
    for name, expert in house.experts.items():
        expert.parts = [ExpertUnavailable(name, "gone")]
    await house.ask({"x-stainless-retry-count": "2"})

    assert [len(expert.asked) for expert in house.experts.values()] == [1, 0]


@pytest.mark.parametrize("value", ["nan", "-1", "1e400", "abc", "0"])
async def test_a_senseless_client_deadline_is_as_good_as_none(house: House, value: str) -> None:
    headers = {"x-stainless-read-timeout": value, "x-stainless-retry-count": value}

    assert (await house.ask(headers)).status_code == 200


async def test_hostile_header_bytes_reach_no_expert(house: House) -> None:
    headers = [(b"traceparent", b"\xff\xfe"), (b"accept", b"a" * 5000), (b"tracestate", b"ok=1")]
    exchange = Exchange(house.app, CHAT, orjson.dumps(HELLO), headers=headers)
    await exchange.task

    assert exchange.status == 200
    assert house.experts["small"].asked[0][2].keys() == {b"tracestate", b"content-type", b"x-request-id"}


async def test_a_new_configuration_keeps_what_was_learnt(house: House) -> None:
    house.api.health["small"].succeeded("stream", 0.5)
    gate = house.api.gate
    raw = house.api.directory.config.model_dump()
    raw["limits"]["max_in_flight"] = 3
    house.api.apply(IngressConfig.model_validate(raw))

    assert house.api.health["small"].ttft_ms == 500
    assert house.api.gate is gate
    assert gate.try_enter()
    assert gate.try_enter()
    assert gate.try_enter()
    assert not gate.try_enter()
