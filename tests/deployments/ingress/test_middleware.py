"""What Serve never sees of a request, and what the client never sees of Serve's answers."""

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import httpx
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments import app
from deployments.config import IngressArgs
from deployments.ingress import middleware
from deployments.ingress.body_budget import BodyBudget, HeldBytes
from deployments.ingress.deployment import Ingress
from deployments.ingress.middleware import MOST_HEADERS, ServeBoundaryMiddleware, cleaned


class Inner:
    """Serve's server, as far as it matters here: it keeps the request and responds as set."""

    def __init__(self, status: int = 200, kind: bytes = b"text/plain", **headers: str) -> None:
        self.status, self.kind = status, kind
        self.headers = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        self.seen: dict[bytes, bytes] = {}
        self.received = 0
        self.body = b"Path '/' not found."

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.seen = dict(scope["headers"])
        while True:
            message = await receive()
            self.received += len(message.get("body", b""))
            if not message.get("more_body", False):
                break
        headers = [(b"content-type", self.kind), *self.headers]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body[:5], "more_body": True})
        await send({"type": "http.response.body", "body": self.body[5:]})


def budget(max_body_bytes: int, limit: int = 2**30, max_wait_s: float = 1.0) -> BodyBudget:
    return BodyBudget(limit, max_body_bytes, max_wait_s)


async def ask(
    inner: ASGIApp, path: str = "/v1/models", bound: int = 1024 * 1024, **options: Any
) -> httpx.Response:
    transport = httpx.ASGITransport(
        app=ServeBoundaryMiddleware(inner, lambda: budget(bound)), raise_app_exceptions=False
    )
    async with httpx.AsyncClient(transport=transport, base_url="http://serve") as client:
        return await client.post(path, **options)


@pytest.mark.parametrize(
    "name",
    [
        *("x-request-timeout-seconds", "X-Request-Disconnect-Disabled", "serve_multiplexed_model_id"),
        *("serve-multiplexed-model-id", "x-serve-router-hint", "X_Serve_Anything"),
    ],
)
def test_headers_that_steer_serve_never_reach_it(name: str) -> None:
    kept, _ = cleaned([(name.encode(), b"1"), (b"accept", b"*/*")])

    assert dict(kept).keys() == {b"accept", b"x-request-id"}


def test_a_session_id_goes_on_under_another_name() -> None:
    kept, _ = cleaned([(b"X-Session-Id", b"chat-7"), (b"x_session_id", b"chat-8")])

    assert [pair for pair in kept if pair[0] != b"x-request-id"] == [
        (b"x-router-session", b"chat-7"),
        (b"x-router-session", b"chat-8"),
    ]


@pytest.mark.parametrize("bad", [b"\xff\xfe", b"a\x00b", "ü".encode(), b"", b"x" * 129, b"two words"])
def test_a_request_id_that_cannot_be_logged_is_replaced(bad: bytes) -> None:
    kept, request_id = cleaned([(b"x-request-id", bad)])

    assert kept == [(b"x-request-id", request_id.encode())]
    assert len(request_id) == 36


@pytest.mark.parametrize("name", [b"x-request-id", b"X_Request_Id", b"x-client-request-id"])
def test_a_clients_request_id_goes_on_beside_ours(name: bytes) -> None:
    forged = b"req-" + b"0" * 32
    for theirs in (b"abc-1", forged):
        kept, request_id = cleaned([(name, theirs)])

        assert kept == [(b"x-client-request-id", theirs), (b"x-request-id", request_id.encode())]
        assert request_id.encode() != theirs


@settings(max_examples=300, deadline=None)
@given(headers=st.lists(st.tuples(st.binary(max_size=30), st.binary(max_size=60)), max_size=20))
def test_whatever_bytes_headers_hold_serve_can_decode_what_is_kept(
    headers: list[tuple[bytes, bytes]],
) -> None:
    kept, request_id = cleaned(headers)

    assert all(name.decode() and value.decode() is not None for name, value in kept)
    assert [value for name, value in kept if name == b"x-request-id"] == [request_id.encode()]


@pytest.mark.parametrize(
    ("status", "becomes", "code"),
    [
        (404, 503, "starting"),
        (408, 504, "deadline_exceeded"),
        (429, 429, "queue_full"),
        (500, 500, "internal_error"),
        (502, 503, "unavailable"),
        (503, 503, "unavailable"),
        (413, 400, "invalid_request"),
    ],
)
async def test_serves_plain_text_becomes_the_envelope(status: int, becomes: int, code: str) -> None:
    response = await ask(Inner(status, retry_after="7"))

    assert response.status_code == becomes
    assert response.json()["error"]["code"] == code
    assert response.json()["error"].keys() == {"message", "type", "param", "code"}
    assert "Path" not in response.text
    assert response.headers["x-request-id"]
    if becomes in {429, 503}:
        assert response.headers["retry-after"] in {"7", "8"}


async def test_our_own_answers_pass_untouched() -> None:
    inner = Inner(404, b"application/json")
    inner.body = b'{"error":{}}'
    response = await ask(inner)

    assert (response.status_code, response.content) == (404, b'{"error":{}}')


async def test_serves_own_health_page_stays_as_it_is() -> None:
    response = await ask(Inner(503), "/-/healthz")

    assert (response.status_code, response.text) == (503, "Path '/' not found.")


async def test_serves_own_paths_are_bounded_and_cleaned_too() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield b"x" * middleware.SPARE_BYTES

    inner = Inner()
    headers = {b"x-request-id": b"\xff\xfe", b"x-serve-router-hint": b"1"}
    response = await ask(inner, "/-/routes", headers=headers, content=pieces())

    assert response.text == "Path '/' not found."
    assert b"x-serve-router-hint" not in inner.seen
    assert inner.seen[b"x-request-id"].isascii()
    assert inner.received <= 2 * middleware.SPARE_BYTES
    rejected = await ask(inner, "/-/routes", headers={f"x-{n}": "1" for n in range(MOST_HEADERS)})
    assert rejected.json()["error"]["code"] == "headers_too_large"


async def test_a_websocket_is_closed_before_serve_reads_it() -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    headers = [(b"x-request-id", b"\xff\xfe")]
    scope = {"type": "websocket", "path": "/v1/responses", "headers": headers}
    inner = Inner()
    await ServeBoundaryMiddleware(inner, lambda: budget(1000))(scope, receive, send)

    assert sent == [{"type": "websocket.close", "code": 1008}]
    assert inner.seen == {}


async def test_an_exception_below_is_500_without_a_traceback() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")

    response = await ask(broken)

    assert response.status_code == 500
    assert response.json()["error"]["code"] == "internal_error"
    assert "Unicode" not in response.text


async def test_too_many_headers_are_rejected_before_serve_sees_them() -> None:
    inner = Inner()
    response = await ask(inner, headers=[(f"x-{n}", "1") for n in range(MOST_HEADERS + 1)])

    assert response.status_code == 400
    assert response.json()["error"]["code"] == "headers_too_large"
    assert inner.seen == {}


async def test_a_body_beyond_the_bound_takes_no_memory_below(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "SPARE_BYTES", 500)
    inner = Inner(kind=b"application/json")
    pieces: asyncio.Queue[Message] = asyncio.Queue()
    for number in range(100):
        pieces.put_nowait({"type": "http.request", "body": b"x" * 100, "more_body": number < 99})
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    bounded = ServeBoundaryMiddleware(inner, lambda: budget(1000))
    await bounded({"type": "http", "path": "/", "headers": []}, pieces.get, send)

    assert 1000 < inner.received <= 1600
    assert pieces.empty()


async def test_a_stream_passes_piece_by_piece() -> None:
    sent: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200}
        await send({**start, "headers": [(b"content-type", b"text/event-stream")]})
        for piece in (b"a", b"b", b""):
            await send({"type": "http.response.body", "body": piece, "more_body": bool(piece)})

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    outermost = ServeBoundaryMiddleware(app, lambda: budget(1000))
    await outermost({"type": "http", "path": "/", "headers": []}, receive, send)

    assert [message.get("body") for message in sent] == [None, b"a", b"b", b""]


def test_serve_takes_what_the_callback_returns() -> None:
    from ray.serve._private.http_util import validate_http_proxy_callback_return

    assert validate_http_proxy_callback_return(app.middlewares())


def test_the_bound_is_that_of_the_ingress_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    bodies = app.middlewares()[0].kwargs["bodies"]
    handle = SimpleNamespace(options=lambda **_: None)
    ingress = Ingress(IngressArgs(max_body_mib=2), handle)

    assert bodies() is app.BODIES_IN_PROXY  # there is no replica here
    monkeypatch.setattr(app, "served_object", lambda: ingress)
    assert bodies() is ingress.bodies
    assert bodies().max_body_bytes == 2 * 1024 * 1024


async def test_a_body_that_does_not_fit_in_time_is_503_and_gives_its_bytes_back() -> None:
    bodies = budget(10**6, limit=100_000, max_wait_s=0.01)
    other = HeldBytes(bodies, "other")
    await other.grow(90_000)
    exceeding = HeldBytes(bodies, "exceeding")
    await exceeding.grow(90_000)  # one body may
    inner = Inner()
    transport = httpx.ASGITransport(app=ServeBoundaryMiddleware(inner, lambda: bodies))
    async with httpx.AsyncClient(transport=transport, base_url="http://serve") as client:
        response = await client.post("/v1/models", content=bytes(80_000))

    assert (response.status_code, response.json()["error"]["code"]) == (503, "bodies_in_flight")
    assert inner.received == 0
    assert bodies.held == 180_000
    exceeding.release()
    other.release()
    assert bodies.held == 0


async def test_the_ingress_counts_the_same_bytes_until_the_response_begins() -> None:
    bodies = budget(10**6)
    seen: list[int] = []

    async def ingress(scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        held = bodies.hold(dict(scope["headers"])[b"x-request-id"].decode())
        await held.grow(len(message["body"]))
        seen.append(bodies.held)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        seen.append(bodies.held)
        await send({"type": "http.response.body", "body": b""})

    transport = httpx.ASGITransport(app=ServeBoundaryMiddleware(ingress, lambda: bodies))
    async with httpx.AsyncClient(transport=transport, base_url="http://serve") as client:
        await client.post("/v1/models", content=bytes(500))

    assert seen == [500, 0]


def test_every_error_is_json() -> None:
    from deployments.contracts.errors import error_response

    for status in range(400, 600):
        error = middleware.translated(status, {}, "id")
        assert orjson.loads(error_response(error).body)["error"]["code"]
