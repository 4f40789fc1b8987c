"""The id of a request, which is ours and unique, and the client's own one beside it.

Records and ratings join on the id: one that clients choose could stand for another client's request.
"""

import re
import uuid

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

OURS = re.compile(rb"req-[0-9a-f]{32}")
"""The form of an id that the middleware at Serve's boundary gave: it replaces every other one."""
CLIENTS = re.compile(rb"[\x21-\x7e]{1,128}")
"""The form of a client's id that is kept."""
CLIENT_HEADER = b"x-client-request-id"
SESSION = "x-router-session"
"""The header by which a client's session id goes on: Serve reads it under the client's name."""


def new_request_id() -> str:
    """Make an id."""
    return f"req-{uuid.uuid4().hex}"


def request_id(request: Request) -> str:
    """Return a request's id, the same at each call."""
    return _ids(request.scope)[0]


def client_request_id(request: Request) -> str | None:
    """Return the client's own id for a request; `None` where it sent none, or one that is not kept."""
    return _ids(request.scope)[1]


class RequestIds:
    """ASGI app that returns the client's own id with each response of another."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or (client_id := _ids(scope)[1]) is None:
            await self._app(scope, receive, send)
            return

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = [pair for pair in message.get("headers", ()) if pair[0] != CLIENT_HEADER]
                message = {**message, "headers": [*kept, (CLIENT_HEADER, client_id.encode())]}
            await send(message)

        await self._app(scope, receive, send_with_id)


def _ids(scope: Scope) -> tuple[str, str | None]:
    ids: tuple[str, str | None] | None = scope.get("to_router.ids")
    if ids is None:
        sent = dict(reversed(scope["headers"]))
        first = sent.get(b"x-request-id", b"")
        ours = first.decode() if OURS.fullmatch(first) else new_request_id()
        clients = sent.get(CLIENT_HEADER, b"") if OURS.fullmatch(first) or not first else first
        ids = ours, clients.decode() if CLIENTS.fullmatch(clients) else None
        scope["to_router.ids"] = ids
    return ids
