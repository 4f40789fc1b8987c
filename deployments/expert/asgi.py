"""Run an ASGI app in process: bytes in, bytes out.

Knows nothing of Ray, vLLM or OpenAI. The first body bytes leave at once; bytes that arrive while
the consumer is busy leave in one piece, so the size of a chunk follows the load.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from deployments.contracts.messages import Head, Headers

Message = MutableMapping[str, Any]
ASGIApp = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]],
    Awaitable[None],
]

DISCONNECT_GRACE_S = 1.0
"""Time that an app has to end after `http.disconnect` before it is cancelled."""


async def call(
    app: ASGIApp,
    method: str,
    path: str,
    headers: Headers,
    body: bytes,
    *,
    state: Mapping[str, Any] | None = None,
) -> AsyncGenerator[Head | bytes, None]:
    """Call `app` and yield a `Head`, then further body bytes.

    Closing the generator sends the app `http.disconnect`, so that an engine behind it stops
    generating, and cancels it only where it does not react: vLLM generates a non-streaming response in
    a task of its own, which it cancels at a disconnect, and forgets when it is cancelled itself.

    Raises:
        RuntimeError: the app ended without a response.
        Exception: the app's own error.
    """
    sent: asyncio.Queue[Message | None] = asyncio.Queue()
    left = asyncio.Event()
    received = False

    async def receive() -> Message:
        nonlocal received
        if not received:
            received = True
            return {"type": "http.request", "body": body, "more_body": False}
        await left.wait()
        return {"type": "http.disconnect"}

    async def run() -> None:
        try:
            await app(_scope(method, path, headers, body, state), receive, sent.put)
        finally:
            sent.put_nowait(None)

    task = asyncio.create_task(run())
    try:
        start = await _next(sent, task)
        first = await _next(sent, task)
        pieces, more = _drain(sent, first)
        yield Head(start["status"], tuple(start.get("headers", ())), b"".join(pieces), complete=not more)
        while more:
            pieces, more = _drain(sent, await _next(sent, task))
            if chunk := b"".join(pieces):
                yield chunk
        await task
    finally:
        left.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({task}, timeout=DISCONNECT_GRACE_S)
        if not task.done():
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # retrieved: it was raised above, or came after the response was complete


async def _next(sent: "asyncio.Queue[Message | None]", task: "asyncio.Task[None]") -> Message:
    message = await sent.get()
    if message is None:
        await task  # raises the app's own error
        raise RuntimeError("the app ended before its response was complete")
    return message


def _drain(sent: "asyncio.Queue[Message | None]", first: Message) -> tuple[list[bytes], bool]:
    """Return the bodies of the first message and of all that wait behind it; whether more are to come."""
    pieces = [first.get("body", b"")]
    more = first.get("more_body", False)
    while more and not sent.empty():
        message = sent.get_nowait()
        if message is None:
            sent.put_nowait(None)  # the app ended early: the next read raises its error
            break
        pieces.append(message.get("body", b""))
        more = message.get("more_body", False)
    return pieces, more


def _scope(
    method: str, path: str, headers: Headers, body: bytes, state: Mapping[str, Any] | None
) -> MutableMapping[str, Any]:
    path, _, query = path.partition("?")
    length = [(b"content-length", str(len(body)).encode())] if body else []
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [
            *((name.lower(), value) for name, value in headers if name.lower() != b"content-length"),
            *length,
        ],
        "client": ("127.0.0.1", 0),
        "server": ("127.0.0.1", 0),
        "state": dict(state or {}),
    }
