"""Around Serve's HTTP server: strips headers that control Serve, turns its plain-text errors into OpenAI's.

`app.middlewares` puts it into every process that speaks HTTP. Outermost: it sees a request before Serve
reads a header, and a response after Serve has written it. Imports no Ray.
"""

import logging
import os
import re
from collections.abc import Callable
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.contracts.errors import (
    ApiError,
    BadRequest,
    DeadlineExceeded,
    ErrorCode,
    ErrorResponse,
    TooMany,
    Unavailable,
    error_response,
)
from deployments.ingress.body_budget import BodyBudget, HeldBytes
from deployments.ingress.http10 import without_chunks
from deployments.ingress.request_ids import CLIENT_HEADER, CLIENTS, SESSION, new_request_id

logger = logging.getLogger("ray.serve")

SESSION_HEADER = os.environ.get("RAY_SERVE_SESSION_ID_HEADER_KEY", "x-session-id")
STEERING = frozenset(
    name.lower().replace("-", "_").encode()
    for name in (
        "x-request-timeout-seconds",
        "x-request-disconnect-disabled",
        "serve_multiplexed_model_id",
        SESSION_HEADER,
    )
)
"""Headers by which a client could control Serve; dashes read as underscores."""
SESSION_NAME = SESSION_HEADER.lower().replace("-", "_").encode()
STEERING_PREFIX = b"x_serve_"
NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")
VALUE = re.compile(rb"[\t\x20-\x7e]*")
MOST_HEADERS = 128
MOST_HEADER_BYTES = 32 * 1024
MOST_MESSAGE_BYTES = 4096
SPARE_BYTES = 2 * 1024 * 1024
SERVES_OWN = "/-/"
"""Health and routes for Serve's own load balancer, which reads the responses as Serve writes them."""
POLICY_VIOLATION = 1008
"""Of RFC 6455; before a connection is accepted the server responds with 403 instead."""


class ServeBoundaryMiddleware:
    """ASGI middleware at the boundary to Serve.

    Args:
        app: Serve's server.
        bodies: returns the budget for bodies of this process; Serve itself queues a body without any bound.
    """

    def __init__(self, app: ASGIApp, bodies: Callable[[], BodyBudget]) -> None:
        self._app = app
        self._bodies = bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            # No endpoint is one; Serve would read the headers, and count the connection, before it says so.
            await send({"type": "websocket.close", "code": POLICY_VIOLATION})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        send = without_chunks(scope, send)
        sent = scope["headers"]
        headers, request_id = cleaned(sent)
        scope = {**scope, "headers": headers}
        bodies = self._bodies()
        held = HeldBytes(bodies, request_id)
        reply = _Reply(send, request_id, held)
        too_large = (
            len(sent) > MOST_HEADERS
            or sum(len(name) + len(value) for name, value in sent) > MOST_HEADER_BYTES
        )
        if too_large:
            why = f"at most {MOST_HEADERS} headers of {MOST_HEADER_BYTES} bytes together are accepted"
            await reply.reject(BadRequest(why, ErrorCode.HEADERS_TOO_LARGE))
            return
        own = scope["path"].startswith(SERVES_OWN)
        body = _Bounded(receive, 0 if own else bodies.max_body_bytes, held, reply)
        bodies.register(held)
        try:
            await self._app(scope, body, send if own else reply)
        except Exception as error:
            if own or reply.started:
                raise
            logger.exception("unforeseen error around request %s", request_id, exc_info=error)
            await reply.reject(ApiError(f"internal error; request id {request_id}"))
        finally:
            held.release()


def cleaned(headers: list[tuple[bytes, bytes]]) -> tuple[list[tuple[bytes, bytes]], str]:
    """Headers that neither steer Serve nor break its parsing, with a request id of ours; and that id.

    The client's own id, in `x-request-id` or `x-client-request-id`, goes on as the latter.
    """
    kept = []
    ids: dict[bytes, bytes] = {}
    for name, value in headers:
        plain = name.lower().replace(b"-", b"_")
        if plain == SESSION_NAME and VALUE.fullmatch(value):
            kept.append((SESSION.encode(), value))  # Serve would choose the ingress replica by it
            continue
        if plain in STEERING or plain.startswith(STEERING_PREFIX):
            continue
        if plain in {b"x_request_id", b"x_client_request_id"}:
            if CLIENTS.fullmatch(value):
                ids.setdefault(plain, value)
            continue
        if NAME.fullmatch(name) and VALUE.fullmatch(value):
            kept.append((name, value))
    request_id = new_request_id()
    if (clients := ids.get(b"x_request_id", ids.get(b"x_client_request_id"))) is not None:
        kept.append((CLIENT_HEADER, clients))
    return [*kept, (b"x-request-id", request_id.encode())], request_id


class _Bounded:
    """Passes a body up to its limit and a little beyond, so that the ingress sees that it is too long.

    The rest is dropped as it comes and takes no memory. While the bodies in flight leave no space, it does
    not read from the client.
    """

    def __init__(self, receive: Receive, max_bytes: int, held: HeldBytes, reply: "_Reply") -> None:
        self._receive = receive
        self._max_bytes = max_bytes
        self._held = held
        self._reply = reply
        self._passed = 0

    async def __call__(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            if self._passed > self._max_bytes + SPARE_BYTES:
                return {**message, "body": b""}
            self._passed += len(message.get("body", b""))
            try:
                await self._held.grow(self._passed)
            except Unavailable as error:
                await self._reply.reject(error)
                return {"type": "http.disconnect"}
        return message


class _Reply:
    """Passes a response on; an error of Serve's own, in plain text, is held and rewritten."""

    def __init__(self, send: Send, request_id: str, body: HeldBytes) -> None:
        self._send = send
        self._request_id = request_id
        self._body = body
        self._held: Message | None = None
        self._text = b""
        self.started = False
        self._rejected = False

    async def __call__(self, message: Message) -> None:
        if self._rejected:
            return
        if message["type"] == "http.response.start":
            self.started = True
            self._body.release()  # a response that begins needs the request's body no more
            if _is_serves_own(message):
                self._held = message
                return
        if self._held is None:
            await self._send(message)
            return
        if len(self._text) < MOST_MESSAGE_BYTES:
            self._text += message.get("body", b"")
        if not message.get("more_body", False):
            error = translated(self._held["status"], dict(self._held["headers"]), self._request_id)
            logger.info("Serve itself responded with %s: %s", self._held["status"], self._text[:200])
            await self.reject(error)

    async def reject(self, error: ApiError) -> None:
        """Respond with an error; what the app still sends is dropped."""
        if self.started and self._held is None:
            return
        self.started = self._rejected = True
        response: ErrorResponse = error_response(error)
        headers: list[tuple[bytes, bytes]] = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(response.body)).encode()),
            (b"x-request-id", self._request_id.encode()),
            *((name.encode(), value.encode()) for name, value in response.headers),
        ]
        await self._send({"type": "http.response.start", "status": response.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": response.body})


def _is_serves_own(start: Message) -> bool:
    kind = next((value for name, value in start["headers"] if name.lower() == b"content-type"), b"")
    return start["status"] >= 400 and not kind.startswith(b"application/json")


def translated(status: int, headers: dict[bytes, bytes], request_id: str) -> ApiError:
    """The error for a client that an error of Serve's own stands for."""
    retry_after: Any = headers.get(b"retry-after", b"")
    wait_s = float(retry_after) if retry_after.isdigit() else 1.0
    if status == 404:
        # A 404 of the ingress is JSON; this one says that Serve has no application there yet.
        return Unavailable("the system is starting", ErrorCode.STARTING, None, wait_s)
    if status == 408:
        return DeadlineExceeded("the request took longer than Serve's request_timeout_s")
    if status == 429:
        return TooMany("too many requests are waiting", ErrorCode.QUEUE_FULL, None, wait_s)
    if status in {499, 502, 503, 504}:
        return Unavailable("no replica of the ingress is available now", ErrorCode.UNAVAILABLE, None, wait_s)
    if status < 500:
        return BadRequest(f"the request was rejected with status {status}")
    return ApiError(f"internal error; request id {request_id}")
