"""Hostile and senseless input: always a response, never a 500, never a traceback.

The middleware, the ingress and everything behind it but Ray; experts and router are fakes.
"""

import asyncio
import math
import sys
from collections import Counter
from typing import Any

import orjson
import pytest
import schemathesis
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.contracts.endpoints import ENDPOINTS
from deployments.ingress.middleware import ServeBoundaryMiddleware
from tests.deployments.fakes import FakeExpert
from tests.deployments.harness import IngressHarness

PATHS = [*ENDPOINTS, "/v1/route"]
ENVELOPE = {"message", "type", "param", "code"}

scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text()
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
roles = st.sampled_from(["user", "system", "assistant", "tool", "developer"]) | st.text(max_size=5)
parts = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "image_url", "tool_result", "x"])}, optional={"text": st.text()}
)
contents = st.text() | st.none() | st.lists(parts | anything, max_size=4) | anything
messages = st.lists(
    st.fixed_dictionaries({"role": roles | anything, "content": contents}) | anything, max_size=4
)
names = st.sampled_from(["auto", "auto-cheap", "small", "large", "nobody", ""])
routing = st.fixed_dictionaries(
    {},
    optional={
        "cost_weight": scalars,
        "min_quality": st.floats(0, 1) | anything,
        "max_cost_usd": scalars,
        "max_ttft_ms": scalars,
        "experts": st.lists(names, max_size=3) | anything,
        "exclude": st.lists(names, max_size=3) | anything,
        "timeout_s": st.floats(0.001, 100) | anything,
        "fallback": st.booleans() | anything,
        "priority": st.sampled_from(["interactive", "batch"]) | anything,
    },
)
bodies = st.fixed_dictionaries(
    {"model": names | anything},
    optional={
        "messages": messages | anything,
        "prompt": st.text() | st.lists(st.text() | st.integers(0, 9), max_size=4) | anything,
        "input": st.text() | messages | anything,
        "system": anything,
        "instructions": anything,
        "stream": st.booleans() | anything,
        "max_tokens": st.integers(-5, 5000) | anything,
        "tools": anything,
        "previous_response_id": anything,
        "routing": routing | anything,
    },
)
KNOWN_HEADERS = [
    *(b"x-request-id", b"x-request-timeout-seconds", b"x-request-disconnect-disabled", b"authorization"),
    *(b"serve_multiplexed_model_id", b"x-stainless-retry-count", b"x-stainless-read-timeout", b"accept"),
    *(b"content-length", b"content-type", b"traceparent", b"origin", b"x-serve-router-x", b"x-api-key"),
]
hostile_headers = st.lists(
    st.tuples(st.sampled_from(KNOWN_HEADERS) | st.binary(min_size=1, max_size=20), st.binary(max_size=40)),
    max_size=5,
)
raw_bodies = st.binary(max_size=80) | bodies.map(orjson.dumps).flatmap(
    lambda raw: st.integers(0, len(raw)).map(lambda end: raw[:end])
)

pieces_of_streams = st.binary(max_size=120) | st.sampled_from(
    [
        b"data: ",
        b"data: {}\n\n",
        b"data: [DONE]\n\n",
        b": x\n\n",
        b"event: a\ndata: {}\n\n",
        b"\r\n\r\n",
        b"\n",
    ]
)


async def exchange(
    app: ASGIApp, path: str, body: bytes, headers: list[tuple[bytes, bytes]], method: str = "POST"
) -> tuple[int, dict[bytes, bytes], bytes]:
    sent: list[Message] = []
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode("utf-8", "replace"),
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    given_body = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> Message:
        message = next(given_body, None)
        if message is None:
            await asyncio.Event().wait()
            raise AssertionError
        return message

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"], dict(sent[0]["headers"]), b"".join(m.get("body", b"") for m in sent[1:])


def like_serve(app: ASGIApp) -> ASGIApp:
    """Decodes headers as Serve does: what the middleware passes must survive it."""

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        for name, value in scope["headers"]:
            name.decode()
            if name in {b"x-request-id", b"traceparent"}:
                value.decode()
        await app(scope, receive, send)

    return inner


def attack(path: str, body: bytes, headers: list[tuple[bytes, bytes]], method: str = "POST") -> None:
    harness = IngressHarness()
    app = ServeBoundaryMiddleware(like_serve(harness.app), lambda: harness.api.bodies)
    status, answered, told = asyncio.run(exchange(app, path, body, headers, method))

    assert status != 500
    assert b"Traceback" not in told
    if status >= 400 and method != "HEAD":
        assert answered[b"x-request-id"]
        assert orjson.loads(told)["error"].keys() == ENVELOPE
        assert isinstance(orjson.loads(told)["error"]["code"], str)
    assert harness.api.bodies.held == 0
    assert harness.api.queue.held == harness.api.queue.queued == 0
    assert {expert.slots.held for expert in harness.api.registry.experts.values()} == {0}


def stream(pieces: list[bytes], kind: str) -> None:
    """Whatever an expert streams, the client gets an error or a proper end."""
    harness = IngressHarness()
    for name, expert in harness.experts.items():
        expert.parts = pieces if name == "small" else [b"x", b"y"]
        expert.headers = ((b"content-type", b"text/event-stream"),)
    assert isinstance(harness.experts["small"], FakeExpert)
    path = {"chat": "/v1/chat/completions", "messages": "/v1/messages"}[kind]
    body = {"model": "auto", "messages": [{"role": "user", "content": "x"}], "stream": True}
    status, _, told = asyncio.run(exchange(harness.app, path, orjson.dumps(body), []))

    if status == 200:
        lines = told.replace(b"\r", b"\n")  # either ends a line of server-sent events
        assert b"[DONE]" in lines or b"event: message_stop\n" in lines or b"event: error\n" in lines
    else:
        assert status == 503
        assert orjson.loads(told)["error"].keys() == ENVELOPE


def fuzz(examples: int) -> None:
    """Split over bodies, raw bytes, headers and what experts stream."""
    quiet = settings(
        max_examples=math.ceil(examples / 4), deadline=None, suppress_health_check=list(HealthCheck)
    )
    tried: Counter[str] = Counter()

    @quiet
    @given(path=st.sampled_from(PATHS), body=bodies)
    def bodies_of_every_shape(path: str, body: dict[str, Any]) -> None:
        tried["bodies"] += 1
        attack(path, orjson.dumps(body), [(b"content-type", b"application/json")])

    @quiet
    @given(path=st.sampled_from(PATHS) | st.text(max_size=20).map(lambda text: "/" + text), body=raw_bodies)
    def bytes_and_paths_of_every_kind(path: str, body: bytes) -> None:
        tried["bytes"] += 1
        attack(path, body, [])

    @quiet
    @given(
        method=st.sampled_from(["POST", "GET", "PUT", "HEAD", "OPTIONS", "DELETE", "PATCH", "TRACE"]),
        path=st.sampled_from([*PATHS, "/v1/models", "/v1/models/x", "/health", "/ready", "/openapi.json"]),
        headers=hostile_headers,
    )
    def headers_of_every_kind(method: str, path: str, headers: list[tuple[bytes, bytes]]) -> None:
        tried["headers"] += 1
        body = orjson.dumps({"model": "auto", "messages": [{"role": "user", "content": "x"}]})
        attack(path, body, [(name.lower(), value) for name, value in headers], method)

    @quiet
    @given(
        pieces=st.lists(pieces_of_streams, min_size=2, max_size=6), kind=st.sampled_from(["chat", "messages"])
    )
    @example(pieces=[b"event: error", b"\x00\n\n"], kind="messages")
    @example(pieces=[b"event: message_stop", b"\r\n\n"], kind="messages")
    @example(pieces=[b"data: {}", b"\n\nevent: error"], kind="messages")
    @example(pieces=[b"data: {}\n\n", b"event: message_stop"], kind="messages")
    def streams_of_every_kind(pieces: list[bytes], kind: str) -> None:
        tried["streams"] += 1
        stream(pieces, kind)

    bodies_of_every_shape()
    bytes_and_paths_of_every_kind()
    headers_of_every_kind()
    streams_of_every_kind()
    sys.stdout.write(f"{tried.total()} inputs: {dict(tried)}\n")

    assert tried.total() >= examples


def test_four_thousand_hostile_inputs_are_all_answered_and_none_with_500() -> None:
    fuzz(4_000)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_fifty_thousand_hostile_inputs_are_all_answered_and_none_with_500() -> None:
    fuzz(50_000)


schema = schemathesis.openapi.from_asgi("/openapi.json", IngressHarness().app)


@schema.parametrize()
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_requests_made_from_the_published_description_keep_to_it(case: Any) -> None:
    """Statuses, content types and bodies are as the description says, for input that it allows and not."""
    response = case.call()

    assert response.status_code != 500
    if response.status_code >= 400:
        assert response.json()["error"].keys() == ENVELOPE
