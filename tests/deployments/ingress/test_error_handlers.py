"""Bad requests at the ingress: the status, the code and the field of each, in the envelope."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.deployments.harness import IngressHarness
from tests.deployments.ingress.test_api import CHAT, ingress_with


@pytest.fixture
async def harness() -> AsyncIterator[IngressHarness]:
    opened = ingress_with()
    yield opened
    await opened.http.aclose()


BAD: dict[str, tuple[Any, int, str, str | None]] = {
    "not JSON": (b"{", 400, "invalid_json", None),
    "a list": (b"[]", 400, "invalid_json", None),
    "no model": (b'{"messages": []}', 400, "invalid_type", "model"),
    "unknown model": ({**CHAT, "model": "gpt-9"}, 404, "model_not_found", "model"),
    "no messages": ({"model": "auto"}, 400, "missing_field", "messages"),
    "empty messages": ({"model": "auto", "messages": []}, 400, "invalid_type", "messages"),
    "a message that is text": ({"model": "auto", "messages": ["hi"]}, 400, "invalid_type", "messages[0]"),
    "a role that is a number": (
        {"model": "auto", "messages": [{"role": 1, "content": ""}]},
        400,
        "invalid_type",
        "messages[0].role",
    ),
    "stream as text": ({**CHAT, "stream": "yes"}, 400, "invalid_type", "stream"),
    "max_tokens as text": ({**CHAT, "max_tokens": "many"}, 400, "invalid_type", "max_tokens"),
    "routing as text": ({**CHAT, "routing": "fast"}, 400, "invalid_type", "routing"),
    "unknown routing field": ({**CHAT, "routing": {"speed": 1}}, 400, "unknown_field", "routing.speed"),
    "cost_weight as text": (
        {**CHAT, "routing": {"cost_weight": "1"}},
        400,
        "invalid_type",
        "routing.cost_weight",
    ),
    "negative cost_weight": ({**CHAT, "routing": {"cost_weight": -1}}, 400, "invalid_value", "routing"),
    "min_quality above 1": ({**CHAT, "routing": {"min_quality": 2}}, 400, "invalid_value", "routing"),
    "both trade-offs": (
        {**CHAT, "routing": {"min_quality": 0.5, "cost_weight": 1}},
        400,
        "invalid_value",
        "routing",
    ),
    "timeout of 0": ({**CHAT, "routing": {"timeout_s": 0}}, 400, "invalid_value", "routing.timeout_s"),
    "unknown priority": (
        {**CHAT, "routing": {"priority": "now"}},
        400,
        "invalid_value",
        "routing.priority",
    ),
    "a stranger in experts": (
        {**CHAT, "routing": {"experts": ["x"]}},
        400,
        "unknown_expert",
        "routing.experts",
    ),
    "a stranger in exclude": (
        {**CHAT, "routing": {"exclude": ["x"]}},
        400,
        "unknown_expert",
        "routing.exclude",
    ),
    "no expert allowed": ({**CHAT, "routing": {"experts": []}}, 400, "no_eligible_expert", "routing"),
    "longer than every context": (
        {"model": "auto", "messages": [{"role": "user", "content": "x" * 4000}]},
        400,
        "context_length_exceeded",
        "messages",
    ),
    "a stored response with auto": (
        {**CHAT, "previous_response_id": "resp_1"},
        400,
        "unsupported_with_auto",
        "previous_response_id",
    ),
    "too large a body": (b" " * 20_000, 413, "body_too_large", None),
}


@pytest.mark.parametrize("case", BAD)
async def test_bad_requests_get_their_status_and_the_envelope(harness: IngressHarness, case: str) -> None:
    body, status, code, param = BAD[case]
    options = {"content": body} if isinstance(body, bytes) else {"json": body}
    response = await harness.http.post("/v1/chat/completions", **options)

    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert (error["code"], error["param"]) == (code, param)
    assert error["message"]
    assert response.headers["x-request-id"]


async def test_a_chunked_body_over_the_limit_is_rejected(harness: IngressHarness) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield b" " * 1024

    response = await harness.http.post("/v1/chat/completions", content=pieces())

    assert response.status_code == 413


@pytest.mark.parametrize("model", ["auto", "words"])
async def test_a_reference_that_no_engine_resolves_is_the_clients_error(
    harness: IngressHarness, model: str
) -> None:
    items = [{"type": "item_reference", "id": "msg_1"}, {"role": "user", "content": "and then?"}]
    response = await harness.http.post("/v1/responses", json={"model": model, "input": items})

    assert (response.status_code, response.json()["error"]["param"]) == (400, "input")
    assert not any(expert.asked for expert in harness.experts.values())


async def test_a_prompt_that_may_fit_is_the_engines_to_reject(harness: IngressHarness) -> None:
    """About 600 estimated tokens for windows of 512: the text may have fewer."""
    messages = [{"role": "user", "content": "x" * 2400}]
    response = await harness.http.post("/v1/chat/completions", json={"model": "auto", "messages": messages})

    assert response.status_code == 200
