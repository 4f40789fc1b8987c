"""The HTTP contract of the real Starlette app, with fakes for router and experts."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import httpx
import pytest

from deployments.config import IngressArgs
from deployments.contracts.errors import ExpertBroken, ExpertOverloaded, ExpertTimeout, ExpertUnavailable
from deployments.contracts.messages import PolicyView, RouterResponse, RouterState
from router.core import Decision, ExpertView
from router.experts import Price
from tests.deployments.fakes import EVENTS, FakeExpert, answer, event
from tests.deployments.harness import IngressHarness

HELLO = [{"role": "user", "content": "What is 12 + 30?"}]
CHAT = {"model": "auto", "messages": HELLO}
NAMES = ("arithmetic", "words", "generalist")


def ingress_with(**limits: Any) -> IngressHarness:
    """An ingress with three experts of small windows."""
    windows = {name: {"context_window": 512} for name in NAMES}
    ranking = ("generalist", "words", "arithmetic")
    args, price = IngressArgs(max_body_mib=0.01), Price(0.05, 0.1)
    return IngressHarness(names=NAMES, args=args, price=price, ranking=ranking, limits=limits, **windows)


@pytest.fixture
async def harness() -> AsyncIterator[IngressHarness]:
    opened = ingress_with()
    yield opened
    await opened.http.aclose()


async def test_auto_goes_to_the_routers_choice_and_headers_name_it(harness: IngressHarness) -> None:
    response = await harness.http.post("/v1/chat/completions", json=CHAT)

    assert response.status_code == 200
    assert response.content == answer("arithmetic")
    assert response.headers["x-router-expert"] == "arithmetic"
    assert response.headers["x-router-policy"] == "0123456789ab"
    assert response.headers["x-router-score"] == "0.9000"
    assert float(response.headers["x-router-cost-usd"]) == 1e-6
    assert response.headers["x-router-attempts"] == "1"
    assert response.headers["x-router-reason"] == "routed"
    assert response.headers["x-request-id"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/route", "/board"])
async def test_every_path_responds_below_a_route_prefix(harness: IngressHarness, path: str) -> None:
    transport = httpx.ASGITransport(app=harness.app, root_path="/models")
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        ask = client.get if path == "/board" else partial(client.post, json=CHAT)
        response = await ask(f"/models{path}")

    assert response.status_code == 200


async def test_the_expert_gets_the_body_as_sent_but_for_model_and_routing(harness: IngressHarness) -> None:
    extra = {**CHAT, "top_k": 3, "new_field": {"a": [1]}, "routing": {"cost_weight": 0.5}}
    await harness.http.post("/v1/chat/completions", json=extra)

    assert harness.experts["arithmetic"].body() == {
        "model": "arithmetic",
        "messages": HELLO,
        "top_k": 3,
        "new_field": {"a": [1]},
    }


async def test_a_clients_key_never_reaches_an_expert(harness: IngressHarness) -> None:
    headers = {"authorization": "Bearer secret", "traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-01"}
    await harness.http.post("/v1/chat/completions", json=CHAT, headers=headers)

    sent = harness.experts["arithmetic"].asked[0][2]
    assert b"authorization" not in sent
    assert b"traceparent" in sent


async def test_a_named_expert_is_not_routed(harness: IngressHarness) -> None:
    response = await harness.http.post("/v1/chat/completions", json={**CHAT, "model": "words"})

    assert response.json()["model"] == "words"
    assert response.headers["x-router-reason"] == "named"
    assert not harness.router.asked
    assert not {"x-router-policy", "x-router-score", "x-router-cost-usd"} & response.headers.keys()


async def test_a_preset_stands_for_preferences_and_the_body_outweighs_it(harness: IngressHarness) -> None:
    await harness.http.post("/v1/chat/completions", json={**CHAT, "model": "auto-cheap"})
    await harness.http.post(
        "/v1/chat/completions", json={**CHAT, "model": "auto-cheap", "routing": {"min_quality": 0.9}}
    )

    assert harness.router.asked[0].preferences.cost_weight == 1.0
    assert harness.router.asked[1].preferences.min_quality == 0.9
    assert harness.router.asked[1].preferences.cost_weight is None


async def test_a_stream_passes_byte_for_byte(harness: IngressHarness) -> None:
    parts = [event("arithmetic", "4"), event("arithmetic", "2"), b"data: [DONE]\n\n"]
    harness.experts["arithmetic"] = FakeExpert("arithmetic", *parts, headers=EVENTS)
    harness.api.registry.experts["arithmetic"].client = harness.experts["arithmetic"]
    response = await harness.http.post("/v1/chat/completions", json={**CHAT, "stream": True})

    assert response.content == b"".join(parts)
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert harness.experts["arithmetic"].closed == 1


@pytest.mark.parametrize(
    "failure", [ExpertUnavailable, ExpertTimeout, ExpertOverloaded, ExpertBroken], ids=lambda f: f.__name__
)
async def test_a_failed_expert_falls_back_before_the_first_byte(
    harness: IngressHarness, failure: Any
) -> None:
    harness.experts["arithmetic"].parts = [failure("arithmetic", "why")]
    response = await harness.http.post("/v1/chat/completions", json=CHAT)

    assert response.json()["model"] == "words"
    assert response.headers["x-router-reason"] == "fallback_expert"
    assert response.headers["x-router-attempts"] == "2"


@pytest.mark.parametrize("status", [500, 502, 503, 429])
async def test_an_experts_5xx_and_429_fall_back(harness: IngressHarness, status: int) -> None:
    harness.experts["arithmetic"].status = status
    response = await harness.http.post("/v1/chat/completions", json=CHAT)

    assert response.status_code == 200
    assert response.json()["model"] == "words"


async def test_garbage_and_half_an_answer_fall_back(harness: IngressHarness) -> None:
    for parts in ([b"<html>"], [b'{"half":', ExpertUnavailable("arithmetic", "gone")]):
        harness.experts["arithmetic"].parts = parts
        response = await harness.http.post("/v1/chat/completions", json=CHAT)

        assert response.json()["model"] == "words"
        assert response.headers["x-router-attempts"] == "2"


async def test_no_fallback_after_the_first_byte(harness: IngressHarness) -> None:
    broken = FakeExpert(
        "arithmetic", event("arithmetic", "4"), ExpertUnavailable("arithmetic", "gone"), headers=EVENTS
    )
    harness.api.registry.experts["arithmetic"].client = broken
    response = await harness.http.post("/v1/chat/completions", json={**CHAT, "stream": True})

    assert response.status_code == 200
    assert response.content.startswith(event("arithmetic", "4"))
    assert response.text.count('data: {"error"') == 1
    assert response.text.endswith("data: [DONE]\n\n")
    assert not harness.experts["words"].asked


async def test_a_stream_that_ends_early_ends_in_an_error_event(harness: IngressHarness) -> None:
    harness.api.registry.experts["arithmetic"].client = FakeExpert(
        "arithmetic", event("arithmetic", "4"), event("arithmetic", "2"), headers=EVENTS
    )
    response = await harness.http.post("/v1/chat/completions", json={**CHAT, "stream": True})

    assert '"stream_interrupted"' in response.text
    assert response.text.endswith("data: [DONE]\n\n")


async def test_a_named_expert_has_no_fallback_by_default(harness: IngressHarness) -> None:
    harness.experts["words"].parts = [ExpertUnavailable("words", "gone")]
    named = {**CHAT, "model": "words"}
    alone = await harness.http.post("/v1/chat/completions", json=named)
    helped = await harness.http.post("/v1/chat/completions", json={**named, "routing": {"fallback": True}})

    assert alone.status_code == 503
    assert int(alone.headers["retry-after"]) >= 1
    assert helped.json()["model"] == "generalist"


async def test_an_auto_request_may_exclude_fallback(harness: IngressHarness) -> None:
    harness.experts["arithmetic"].parts = [ExpertUnavailable("arithmetic", "gone")]
    response = await harness.http.post("/v1/chat/completions", json={**CHAT, "routing": {"fallback": False}})

    assert response.status_code == 503
    assert response.json()["error"]["code"] == "expert_unavailable"


async def test_timeouts_of_all_experts_are_504(harness: IngressHarness) -> None:
    for expert in harness.experts.values():
        expert.parts = [ExpertTimeout(expert.model, "slow")]
    response = await harness.http.post("/v1/chat/completions", json=CHAT)

    assert response.status_code == 504
    assert response.json()["error"]["code"] == "deadline_exceeded"


async def test_an_experts_context_error_counts_as_ineligible(harness: IngressHarness) -> None:
    refusal = b'{"error": {"message": "This model\'s maximum context length is 5 tokens", "code": 400}}'
    harness.experts["arithmetic"].parts = [refusal]
    harness.experts["arithmetic"].status = 400
    response = await harness.http.post("/v1/chat/completions", json=CHAT)

    assert response.json()["model"] == "words"


async def test_an_experts_400_is_rewritten_and_not_tried_elsewhere(harness: IngressHarness) -> None:
    harness.experts["arithmetic"].parts = [
        b'{"error": {"message": "bad temperature", "param": "temperature", "code": 400}}'
    ]
    harness.experts["arithmetic"].status = 400
    response = await harness.http.post("/v1/chat/completions", json=CHAT)

    assert response.status_code == 400
    assert response.json() == {
        "error": {
            "message": "bad temperature",
            "type": "invalid_request_error",
            "param": "temperature",
            "code": "invalid_request",
        }
    }
    assert not harness.experts["words"].asked


@pytest.mark.parametrize(
    "failure", [TimeoutError(), ConnectionError("no replica"), RouterResponse(None, "none loaded")]
)
async def test_without_the_router_the_static_ranking_answers(harness: IngressHarness, failure: Any) -> None:
    harness.router.answer = failure
    response = await harness.http.post("/v1/chat/completions", json=CHAT)

    assert response.json()["model"] == "generalist"
    assert response.headers["x-router-reason"] == "fallback_router"
    assert "x-router-score" not in response.headers


async def test_route_shows_what_the_request_would_do(harness: IngressHarness) -> None:
    body = {**CHAT, "routing": {"exclude": ["words"]}}
    told = (await harness.http.post("/v1/route", json=body)).json()
    done = await harness.http.post("/v1/chat/completions", json=body)

    assert told["expert"] == done.headers["x-router-expert"] == "arithmetic"
    assert told["ranking"] == ["arithmetic", "generalist"]
    assert told["policy"] == "0123456789ab"
    assert told["reason"] == "routed"
    assert told["experts"]["words"]["eligible"] is False
    assert told["experts"]["words"]["excluded_because"] == "in routing.exclude"
    assert told["experts"]["arithmetic"].keys() == {
        "score",
        "cost_usd",
        "ttft_ms",
        "wait_ms",
        "latency_ms",
        "eligible",
        "excluded_because",
        "utility",
        "reason",
    }
    assert told["experts"]["words"]["reason"] == "excluded: in routing.exclude"


async def test_models_lists_auto_presets_experts(harness: IngressHarness) -> None:
    listed = (await harness.http.get("/v1/models")).json()
    one = (await harness.http.get("/v1/models/words")).json()
    none = await harness.http.get("/v1/models/gpt-9")

    assert [card["id"] for card in listed["data"]] == ["auto", "auto-cheap", *NAMES]
    assert all(card["max_model_len"] == 512 for card in listed["data"])
    assert one["id"] == "words"
    assert none.status_code == 404


async def test_ready_is_503_while_a_part_cannot_answer(harness: IngressHarness) -> None:
    ready = await harness.http.get("/ready")
    harness.api.registry.lose_router("the router does not answer")
    waiting = await harness.http.get("/ready")

    assert ready.status_code == 200
    assert ready.json()["ready"] is True
    assert waiting.status_code == 503
    assert waiting.json()["parts"]["router"] == {"ready": False, "why": "the router does not answer"}


async def test_ready_names_experts_that_the_policy_does_not_cover(harness: IngressHarness) -> None:
    harness.api.registry.update_router(RouterState(PolicyView("ffffffffffff", ("words",), ("words",)), None))
    waiting = await harness.http.get("/ready")

    assert waiting.status_code == 503
    assert "does not cover the experts arithmetic, generalist" in waiting.json()["parts"]["router"]["why"]


async def test_wrong_method_and_unknown_path_wear_the_envelope(harness: IngressHarness) -> None:
    method = await harness.http.get("/v1/chat/completions")
    path = await harness.http.post("/v1/nothing")

    assert (method.status_code, method.json()["error"]["code"]) == (405, "method_not_allowed")
    assert (path.status_code, path.json()["error"]["code"]) == (404, "path_not_found")


async def test_an_unforeseen_fault_is_500_with_nothing_but_the_request_id(harness: IngressHarness) -> None:
    harness.router.answer = RuntimeError("a secret from within")
    response = await harness.http.post("/v1/chat/completions", json=CHAT, headers={"x-request-id": "abc-1"})

    assert response.status_code == 500
    assert response.headers["x-request-id"] in response.json()["error"]["message"]
    assert response.headers["x-client-request-id"] == "abc-1"
    assert "secret" not in response.text


async def test_the_routers_own_no_is_400_with_reasons(harness: IngressHarness) -> None:
    why = "expected cost 1 US$ is above max_cost_usd 0"
    view = ExpertView(0.5, 1.0, None, eligible=False, excluded_because=why)
    harness.router.answer = RouterResponse(Decision((), {"words": view}, "0123456789ab"))
    response = await harness.http.post("/v1/chat/completions", json={**CHAT, "routing": {"max_cost_usd": 0}})

    assert response.status_code == 400
    assert response.json()["error"]["code"] == "no_eligible_expert"
    assert "words: expected cost" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": "12 + 30"}),
        ("/v1/responses", {"input": "What is 12 + 30?"}),
        ("/v1/messages", {"messages": HELLO, "max_tokens": 5}),
        ("/tokenize", {"prompt": "hello"}),
    ],
)
async def test_every_endpoint_is_routed_and_keeps_its_path(
    harness: IngressHarness, path: str, body: Any
) -> None:
    response = await harness.http.post(path, json={"model": "auto", **body})

    assert response.status_code == 200
    assert harness.experts["arithmetic"].asked[0][1] == path


async def test_embeddings_go_only_to_experts_that_can(harness: IngressHarness) -> None:
    response = await harness.http.post("/v1/embeddings", json={"model": "auto", "input": "x"})

    assert response.status_code == 400
    assert response.json()["error"]["code"] == "no_eligible_expert"


async def test_metrics_count_what_was_answered(harness: IngressHarness) -> None:
    await harness.http.post("/v1/chat/completions", json=CHAT)
    text = (await harness.http.get("/metrics")).text

    assert 'to_router_decisions_total{expert="arithmetic",reason="routed"}' in text
    assert 'to_router_cost_usd_total{expert="arithmetic",kind="observed"}' in text


async def test_an_open_breaker_takes_an_expert_out_of_the_choice(harness: IngressHarness) -> None:
    for _ in range(5):
        harness.api.registry.experts["arithmetic"].breaker.record_failure()
    response = await harness.http.post("/v1/chat/completions", json=CHAT)
    only = await harness.http.post(
        "/v1/chat/completions", json={**CHAT, "routing": {"experts": ["arithmetic"]}}
    )

    assert response.json()["model"] == "words"
    assert only.status_code == 503
    assert only.json()["error"]["code"] == "no_expert_available"
