"""Around Serve's own HTTP server: what steers Serve is ours to say, and its plain text becomes our envelope.

Serve loads it in every process that speaks HTTP, through RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH.
Outermost: it sees a request before Serve reads a header, and an answer after Serve is done with it.
Imports no Ray.
"""

import logging
import os
import re
import uuid
from dataclasses import dataclass, field
from typing import Any

from starlette.middleware import Middleware
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
"""Headers by which a client could change how Serve treats its request; dashes read as underscores."""
STEERING_PREFIX = b"x_serve_"
NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")
VALUE = re.compile(rb"[\t\x20-\x7e]*")
REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")
MOST_HEADERS = 128
MOST_HEADER_BYTES = 32 * 1024
MOST_MESSAGE_BYTES = 4096
SPARE_BYTES = 2 * 1024 * 1024
SERVES_OWN = "/-/"
"""Health and routes for Serve's own front: left as they are."""


@dataclass(slots=True)
class Bounds:
    """Set by the ingress where it lives in this process; Serve queues a body without any bound."""

    body_bytes: int = field(default=1024 * 1024 * 1024)


bounds = Bounds()


def middlewares() -> list[Middleware]:
    """What the variable names."""
    return [Middleware(ServeBoundaryMiddleware)]


class ServeBoundaryMiddleware:
    """The ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope.get("path", "").startswith(SERVES_OWN):
            await self._app(scope, receive, send)
            return
        headers, request_id = cleaned(scope["headers"])
        reply = _Reply(send, request_id)
        too_large = (
            len(scope["headers"]) > MOST_HEADERS
            or sum(len(name) + len(value) for name, value in scope["headers"]) > MOST_HEADER_BYTES
        )
        if too_large:
            why = f"at most {MOST_HEADERS} headers of {MOST_HEADER_BYTES} bytes together are taken"
            await reply.refuse(BadRequest(why, ErrorCode.HEADERS_TOO_LARGE))
            return
        try:
            await self._app({**scope, "headers": headers}, _Bounded(receive), reply)
        except Exception as error:
            if reply.started:
                raise
            logger.exception("unforeseen error around request %s", request_id, exc_info=error)
            await reply.refuse(ApiError(f"internal error; request id {request_id}"))


def cleaned(headers: list[tuple[bytes, bytes]]) -> tuple[list[tuple[bytes, bytes]], str]:
    """Headers that neither steer Serve nor break its parsing, with one good request id; and that id."""
    kept = []
    request_id = b""
    for name, value in headers:
        plain = name.lower().replace(b"-", b"_")
        if plain in STEERING or plain.startswith(STEERING_PREFIX):
            continue
        if plain == b"x_request_id":
            request_id = request_id or (value if REQUEST_ID.fullmatch(value) else b"")
            continue
        if NAME.fullmatch(name) and VALUE.fullmatch(value):
            kept.append((name, value))
    request_id = request_id or uuid.uuid4().hex.encode()
    return [*kept, (b"x-request-id", request_id)], request_id.decode()


class _Bounded:
    """Lets a body pass up to its limit and a little beyond, so that the ingress sees that it is too long;
    the rest is dropped as it comes and takes no memory."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._passed = 0

    async def __call__(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            if self._passed > bounds.body_bytes + SPARE_BYTES:
                return {**message, "body": b""}
            self._passed += len(message.get("body", b""))
        return message


class _Reply:
    """Passes an answer on; one of Serve's own, in plain text, is held and rewritten."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id
        self._held: Message | None = None
        self._text = b""
        self.started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
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
            logger.info("Serve answered %s itself: %s", self._held["status"], self._text[:200])
            await self.refuse(error)

    async def refuse(self, error: ApiError) -> None:
        """Answer with one of our refusals."""
        self.started = True
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
    """What an answer of Serve's own means to a client."""
    told: Any = headers.get(b"retry-after", b"")
    wait_s = float(told) if told.isdigit() else 1.0
    if status == 404:
        # Our own 404 is JSON: this one says that Serve has no application there yet.
        return Unavailable("the system is starting", ErrorCode.STARTING, None, wait_s)
    if status == 408:
        return DeadlineExceeded("the request took longer than Serve's request_timeout_s")
    if status == 429:
        return TooMany("too many requests wait already", ErrorCode.QUEUE_FULL, None, wait_s)
    if status in {499, 502, 503, 504}:
        return Unavailable("no replica of the ingress can answer now", ErrorCode.UNAVAILABLE, None, wait_s)
    if status < 500:
        return BadRequest(f"the request was refused with status {status}")
    return ApiError(f"internal error; request id {request_id}")
