"""Run an ASGI app in process: bytes in, bytes out.

Knows nothing of Ray, vLLM or OpenAI. The first body bytes leave at once; bytes that arrive soon after,
or while the consumer is busy, leave in one piece. An app that is far ahead of its consumer waits for it.
"""

import asyncio
import contextlib
from collections import deque
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
MAX_WAITING_BYTES = 1024 * 1024
"""Body bytes that wait for the consumer; the app's next message waits until they are taken."""


async def call(
    app: ASGIApp,
    method: str,
    path: str,
    headers: Headers,
    body: bytes,
    *,
    state: Mapping[str, Any] | None = None,
    interval_s: float = 0.0,
) -> AsyncGenerator[Head | bytes, None]:
    """Call `app` and yield a `Head`, then further body bytes.

    The first piece after the head leaves at once, for the head may have no token yet; further ones are
    `interval_s` apart: what comes earlier leaves together, the end of the response at once.

    Closing the generator sends the app `http.disconnect`, so that an engine behind it stops
    generating, and cancels it only where it does not react: vLLM generates a non-streaming response in
    a task of its own, which it cancels at a disconnect, and forgets when it is cancelled itself.

    Raises:
        RuntimeError: the app ended without a response.
        Exception: the app's own error.
    """
    sent = _Messages()
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
            sent.end()

    task, now = asyncio.create_task(run()), asyncio.get_running_loop().time
    try:
        start = await _next(sent, task)
        pieces, more = sent.drain(await _next(sent, task))
        yield Head(start["status"], tuple(start.get("headers", ())), b"".join(pieces), complete=not more)
        due = 0.0
        while more:
            first = await _next(sent, task)
            if (wait_s := due - now()) > 0 and first.get("more_body", False):
                await sent.gather(wait_s)
            pieces, more = sent.drain(first)
            if chunk := b"".join(pieces):
                yield chunk
                due = now() + interval_s
        await task
    finally:
        left.set()
        sent.discard()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({task}, timeout=DISCONNECT_GRACE_S)
        if not task.done():
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # retrieved: it was raised above, or came after the response was complete


class _Messages:
    """Messages of an app on their way to the consumer, bounded by the bytes of their bodies."""

    def __init__(self) -> None:
        self._waiting: deque[Message] = deque()
        self._bytes = 0
        self._ended = False
        self._discards = False
        self._arrived = asyncio.Event()
        self._hurries = asyncio.Event()
        """Set where messages are not to wait for others: the last one is there, or they take much memory."""
        self._taken = asyncio.Event()

    async def put(self, message: Message) -> None:
        """Add a message; waits while too many bytes wait. After the consumer left it has no effect."""
        while self._bytes >= MAX_WAITING_BYTES and not self._discards:
            self._taken.clear()
            await self._taken.wait()
        if self._discards:
            await asyncio.sleep(0)  # an app that never waits is to be cancelled here
            return
        self._waiting.append(message)
        self._bytes += len(message.get("body", b""))
        is_last = message["type"] == "http.response.body" and not message.get("more_body", False)
        if is_last or self._bytes >= MAX_WAITING_BYTES:
            self._hurries.set()
        self._arrived.set()

    def end(self) -> None:
        """The app sends no further message."""
        self._ended = True
        self._hurries.set()
        self._arrived.set()

    def discard(self) -> None:
        """The consumer left."""
        self._discards = True
        self._taken.set()

    async def get(self) -> Message | None:
        """Return the next message; `None` after the last one."""
        while not self._waiting:
            if self._ended:
                return None
            self._arrived.clear()
            await self._arrived.wait()
        return self._take()

    async def gather(self, seconds: float) -> None:
        """Wait for so many seconds, or until messages are not to wait any more."""
        timer = asyncio.get_running_loop().call_later(seconds, self._hurries.set)
        try:
            await self._hurries.wait()
        finally:
            timer.cancel()
            if not self._ended:
                self._hurries.clear()

    def drain(self, first: Message) -> tuple[list[bytes], bool]:
        """Return the bodies of `first` and of all that wait behind it; whether more are to come."""
        pieces = [first.get("body", b"")]
        more = first.get("more_body", False)
        while more and self._waiting:
            message = self._take()
            pieces.append(message.get("body", b""))
            more = message.get("more_body", False)
        return pieces, more

    def _take(self) -> Message:
        message = self._waiting.popleft()
        self._bytes -= len(message.get("body", b""))
        self._taken.set()
        return message


async def _next(sent: _Messages, task: "asyncio.Task[None]") -> Message:
    message = await sent.get()
    if message is None:
        await task  # raises the app's own error
        raise RuntimeError("the app ended before its response was complete")
    return message


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
