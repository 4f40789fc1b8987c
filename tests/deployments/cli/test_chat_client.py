"""The chat's client against scripted responses: streams, errors and prices."""

import json
from typing import Any

import httpx
import pytest

from deployments.cli.chat_client import ChatClient, ChatError

BODY = {"model": "auto", "messages": []}
STREAM = {"content-type": "text/event-stream"}


def client(response: httpx.Response) -> ChatClient:
    transport = httpx.MockTransport(lambda request: response)
    return ChatClient(httpx.Client(base_url="http://endpoint", transport=transport))


def stream(*events: Any, **headers: str) -> httpx.Response:
    lines = [event if isinstance(event, str) else json.dumps(event, ensure_ascii=False) for event in events]
    return httpx.Response(
        200, headers={**STREAM, **headers}, text="".join(f"data: {line}\n\n" for line in lines)
    )


def delta(**fields: str) -> dict[str, Any]:
    return {"choices": [{"delta": fields}]}


def test_answer_holds_text_reasoning_usage_and_headers() -> None:
    text: list[str] = []
    reasoning: list[str] = []
    usage = {"prompt_tokens": 3, "completion_tokens": 2}
    headers = {"x-router-expert": "words", "x-router-attempts": "2", "x-router-reason": "fallback_expert"}
    events = (delta(reasoning="hm"), delta(content="a "), delta(content="b"), {"usage": usage}, "[DONE]")

    answer = client(stream(*events, **headers)).answer(BODY, text.append, reasoning.append)

    assert (answer.text, answer.reasoning, answer.usage, answer.error) == ("a b", "hm", usage, None)
    assert (answer.expert, answer.attempts, answer.reason) == ("words", 2, "fallback_expert")
    assert ("".join(text), "".join(reasoning)) == ("a b", "hm")


def test_unicode_line_separators_do_not_split_an_event() -> None:
    text: list[str] = []

    content = "a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg"

    answer = client(stream(delta(content=content), "[DONE]")).answer(BODY, text.append, text.append)

    assert answer.text == content


@pytest.mark.parametrize(
    "odd",
    [
        {"error": None, "choices": None, "usage": "7 tokens"},
        {"choices": [{"delta": {"content": [{"type": "text", "text": ""}]}}, None, {"delta": 7}]},
        {"usage": {"completion_tokens": "3"}},
    ],
)
def test_an_odd_event_does_not_end_the_answer(odd: dict[str, Any]) -> None:
    events = (delta(content="a"), odd, delta(content="b"))

    answer = client(stream(*events)).answer(BODY, lambda text: None, lambda text: None)

    assert (answer.text, answer.error) == ("ab", None)
    assert client(stream()).cost_usd(answer) is None


def test_an_error_that_is_a_text_becomes_the_answers_error() -> None:
    answer = client(stream({"error": "busy"})).answer(BODY, lambda text: None, lambda text: None)

    assert answer.error == "busy"


def test_error_event_becomes_the_answers_error() -> None:
    events = (delta(content="a"), {"error": {"message": "the expert failed"}})

    answer = client(stream(*events)).answer(BODY, lambda text: None, lambda text: None)

    assert (answer.text, answer.error) == ("a", "the expert failed")


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (stream("{"), "an event that is not JSON"),
        (httpx.Response(200, json={}), "not a stream of events"),
        (httpx.Response(502, text="<html>"), "502: a response that is not of this API"),
        (
            httpx.Response(503, json={"error": {"message": "busy"}}, headers={"retry-after": "5"}),
            "503: busy; try again in 5 s",
        ),
        (
            httpx.Response(401, json={"error": {"message": "no key"}}),
            "401: no key; put a key into TO_ROUTER_KEY",
        ),
    ],
    ids=["broken event", "no stream", "a proxy's error", "overload", "key missing"],
)
def test_response_that_is_no_answer_raises_one_line(response: httpx.Response, message: str) -> None:
    with pytest.raises(ChatError, match=message):
        client(response).answer(BODY, lambda text: None, lambda text: None)


def test_cost_needs_price_and_usage() -> None:
    facts = {"policy_id": "p", "prices": {"auto": {"input": 1.0, "output": 2.0}}, "preferences": None}
    priced = client(httpx.Response(200, json=facts))
    priced.read_prices()
    answer = client(stream("[DONE]")).answer(BODY, lambda text: None, lambda text: None)

    assert priced.cost_usd(answer) is None
    answer.usage = {"prompt_tokens": 10, "completion_tokens": 5}
    assert priced.cost_usd(answer) == pytest.approx(20e-6)
    answer.expert = "unknown"
    assert priced.cost_usd(answer) is None


def test_endpoint_without_a_page_has_no_prices() -> None:
    client(httpx.Response(404)).read_prices()
    with pytest.raises(ChatError, match="500"):
        client(httpx.Response(500)).read_prices()


@pytest.mark.parametrize("content", [b"<html>", b"[]", b"\xff", b"[" * 100_000])
def test_a_web_server_of_another_kind_is_one_line(content: bytes) -> None:
    other = client(httpx.Response(200, content=content))

    with pytest.raises(ChatError, match="/page/data/ask returned no JSON object"):
        other.read_prices()
    with pytest.raises(ChatError, match="/v1/route returned no JSON object"):
        other.decide(BODY)
