"""Variants through the ingress: their names, their fields, and endpoints that have no field for them."""

import orjson

from tests.deployments.fakes import EVENTS, answer, event
from tests.deployments.harness import IngressHarness

THINKING = {"app": "expert-qwen", "reasoning": "high"}
SQL = {"app": "expert-qwen", "adapter": "sql"}


def harness() -> IngressHarness:
    return IngressHarness(names=("qwen", "thinking", "sql"), qwen={}, thinking=THINKING, sql=SQL)


async def test_a_variant_answers_under_its_name() -> None:
    field = harness()
    field.experts["sql"].parts = [answer("sql@0123456789ab")]
    response = await field.ask(model="sql")

    assert response.json()["model"] == "sql"
    assert response.headers["x-router-expert"] == "sql"


async def test_a_stream_of_a_variant_has_its_name_in_every_event() -> None:
    field = harness()
    expert = field.experts["thinking"]
    expert.parts = [event("qwen", "4"), event("qwen", "2"), b"data: [DONE]\n\n"]
    expert.headers = EVENTS
    response = await field.ask(model="thinking", stream=True)

    lines = [line[6:] for line in response.text.splitlines() if line.startswith("data: {")]
    assert [orjson.loads(line)["model"] for line in lines] == ["thinking"] * 2
    assert expert.body()["reasoning_effort"] == "high"


async def test_a_named_variant_is_rejected_where_its_endpoint_cannot_express_it() -> None:
    field = harness()
    response = await field.http.post("/v1/completions", json={"model": "thinking", "prompt": "hi"})

    assert response.status_code == 400
    assert response.json()["error"]["code"] == "not_supported_by_expert"
    assert "/v1/completions has no field for reasoning" in response.json()["error"]["message"]
    assert field.experts["thinking"].asked == []


async def test_in_flight_requests_of_an_engine_are_counted_once() -> None:
    field = harness()
    text = (await field.http.get("/metrics")).text

    in_flight = [line for line in text.splitlines() if line.startswith("to_router_expert_in_flight{")]
    assert in_flight == ['to_router_expert_in_flight{expert="qwen"} 0.0']
