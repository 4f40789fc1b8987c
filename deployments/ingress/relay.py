"""Relay an expert's response to the client: bytes untouched, the ingress' headers added.

A stream that breaks off or stalls after its first byte, or exceeds the request's deadline, ends in one
error event and `[DONE]`: there is no second attempt then. Knows ASGI and server-sent events.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from deployments.contracts.endpoints import Endpoint
from deployments.contracts.errors import ErrorCode, ExpertError, envelope
from deployments.contracts.messages import Headers
from deployments.contracts.protocols import ResponseStream
from deployments.contracts.sse import (
    DONE,
    StreamObserver,
    end_of_events,
    is_event_stream,
    without_usage_events,
)

logger = logging.getLogger("ray.serve")

MOST_HELD_BYTES = 1024 * 1024
"""An unfinished event longer than this is forwarded as it comes."""
PIECE_BYTES = 64 * 1024
"""A longer body is sent in pieces of this size, each once the client has read most of those before."""
MIN_SEND_S = 10.0
"""Time that a client has to read a non-streaming response, however little the deadline leaves."""
END_S = 1.0
"""Time that a stream's connection has to end after its last event, which lets it be used again."""
BREAK_OFF_S = 5.0
"""Time that a client has to read the event by which a stream breaks off."""
FORWARDED = frozenset({b"cache-control", b"metadata", b"openai-processing-ms", b"openai-version"})
"""Headers of an expert that reach the client: they describe its response and steer no client."""
CONTENT_TYPES = frozenset({b"application/json", b"application/octet-stream", b"text/event-stream"})
"""Content types of the API's responses."""
INTERRUPTED = ("the expert broke off its response", ErrorCode.STREAM_INTERRUPTED)
STALLED = ("the expert sent nothing for too long", ErrorCode.STREAM_INTERRUPTED)
OUT_OF_TIME = ("the request's deadline passed before the response ended", ErrorCode.DEADLINE_EXCEEDED)


class Relay(Response):
    """An expert's 2xx response on its way to the client.

    Args:
        left_s: seconds that are left for the response to end.
        idle_s: the longest silence of the expert within a stream.
        finished: is called once with what was seen, however the response ends.
        hides_usage: whether a stream's usage is for the accounting alone.
    """

    def __init__(
        self,
        stream: ResponseStream,
        headers: Mapping[str, str],
        *,
        endpoint: Endpoint,
        left_s: Callable[[], float],
        idle_s: float,
        finished: Callable[[StreamObserver], None],
        hides_usage: bool = False,
    ) -> None:
        self._hides_usage = hides_usage
        self._stream = stream
        self._left_s = left_s
        self._idle_s = idle_s
        self._endpoint = endpoint
        self._finished = finished
        self.status_code = stream.head.status
        self.background = None
        kept = [(name.lower(), value) for name, value in stream.head.headers if name.lower() in FORWARDED]
        kept += [
            (b"content-type", _content_type(stream.head.headers)),
            (b"x-content-type-options", b"nosniff"),
        ]
        ours = [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
        names = {name for name, _ in ours}
        self.raw_headers = [*((name, value) for name, value in kept if name not in names), *ours]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        head = self._stream.head
        # A short stream may come in one piece: only its content type shows that it is a stream.
        complete = head.complete and not is_event_stream(head.headers)
        observer = StreamObserver(self._endpoint, streamed=not complete)
        headers = list(self.raw_headers)
        if complete:
            headers.append((b"content-length", str(len(head.body)).encode()))
        try:
            await send({"type": "http.response.start", "status": head.status, "headers": headers})
            if complete:
                observer.tail = head.body  # before it is sent: the client may leave meanwhile
                await self._send_whole(send, observer, head.body)
            else:
                await self._relay_stream(send, observer)
        finally:
            if observer.streamed and observer.ended and observer.outcome == "disconnected":
                observer.outcome = "complete"  # the client left with the last event
            try:
                await self._stream.aclose()
            except ExpertError:
                logger.info("an expert failed while its stream was closed")
            finally:
                self._finished(observer)

    async def _send_whole(self, send: Send, observer: StreamObserver, body: bytes) -> None:
        """Send a body no faster than the client reads it: its slots are held until then."""
        try:
            async with asyncio.timeout(max(MIN_SEND_S, self._left_s())):
                for end in range(PIECE_BYTES, len(body), PIECE_BYTES):
                    piece = body[end - PIECE_BYTES : end]
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                rest = body[(max(len(body), 1) - 1) // PIECE_BYTES * PIECE_BYTES :]
                await send({"type": "http.response.body", "body": rest, "more_body": False})
        except TimeoutError:
            logger.info("a client did not read its response in time")
            return
        observer.outcome = "complete"

    async def _relay_stream(self, send: Send, observer: StreamObserver) -> None:
        """Send whole events only, so that one that breaks off midway never reaches the client."""
        pending = bytearray()
        silence = _Silence(self._idle_s)
        try:
            async with asyncio.timeout(self._left_s()) as limit:
                with silence.ends(limit):
                    chunk: bytes | None = self._stream.head.body
                    while chunk is not None:
                        await self._send_events(send, observer, pending, chunk)
                        silence.begin(END_S if observer.ended else self._idle_s)
                        chunk = await anext(self._stream.rest, None)
                        silence.end()
        except ExpertError:
            if not observer.ended:
                await _break_off(send, observer, INTERRUPTED)
                return
        except TimeoutError:
            if not observer.ended:
                await _break_off(send, observer, STALLED if silence.was_too_long else OUT_OF_TIME)
                return
        held = bytes(pending)
        if held.strip() == DONE.strip():
            held = DONE  # accepted without its blank line, and forwarded with it
        if observer.ended or held == DONE:
            observer.saw(held)
            await send({"type": "http.response.body", "body": held, "more_body": True})
        if not observer.ended:
            await _break_off(send, observer, INTERRUPTED)
            return
        observer.outcome = "broken" if observer.failed else "complete"
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_events(
        self, send: Send, observer: StreamObserver, pending: bytearray, chunk: bytes
    ) -> None:
        """Send all whole events of the pending bytes and a chunk; the unfinished rest stays pending."""
        searched = len(pending)
        pending += chunk
        end = end_of_events(pending, searched)
        if len(pending) - end > MOST_HELD_BYTES:
            end = len(pending)
        if end:
            events = bytes(pending[:end])
            del pending[:end]
            observer.saw(events)
            if self._hides_usage:
                events = without_usage_events(events)
            if events:
                await send({"type": "http.response.body", "body": events, "more_body": True})


class _Silence:
    """The silence of an expert between two chunks: it ends the scope of a timeout once it is too long.

    One timer looks now and then, because to set one for each chunk would cost more than the chunk.
    """

    def __init__(self, longest_s: float) -> None:
        self.was_too_long = False
        self._loop = asyncio.get_running_loop()
        self._longest_s = longest_s
        self._since: float | None = None

    @contextmanager
    def ends(self, limit: asyncio.Timeout) -> Iterator[None]:
        """End the scope of `limit` when it is too long."""
        self._limit = limit
        self._timer = self._loop.call_later(self._longest_s, self._look)
        try:
            yield
        finally:
            self._timer.cancel()

    def begin(self, longest_s: float) -> None:
        """The expert is waited for."""
        self._since = self._loop.time()
        if longest_s < self._longest_s:
            self._longest_s = longest_s
            self._timer.cancel()
            self._timer = self._loop.call_later(longest_s, self._look)

    def end(self) -> None:
        """The expert sent something."""
        self._since = None

    def _look(self) -> None:
        now = self._loop.time()
        silent_s = 0.0 if self._since is None else now - self._since
        if silent_s >= self._longest_s:
            self.was_too_long = True
            self._limit.reschedule(now)
        else:
            self._timer = self._loop.call_later(self._longest_s - silent_s, self._look)


async def _break_off(send: Send, observer: StreamObserver, why: tuple[str, ErrorCode]) -> None:
    """Send an error event and end properly: after the first byte there is no second attempt."""
    observer.outcome = "broken"
    observer.failed = observer.failed or why is not OUT_OF_TIME
    message, code = why
    error = envelope(f"{message}; what came before this event is incomplete", "server_error", code)
    body = b"data: " + orjson.dumps(error) + b"\n\n" + DONE
    try:
        async with asyncio.timeout(BREAK_OFF_S):
            await send({"type": "http.response.body", "body": body, "more_body": False})
    except TimeoutError:
        logger.info("a client did not read the end of its stream in time")


def _content_type(headers: Headers) -> bytes:
    """The expert's content type where the API has it, else JSON: a page would run in the ingress' origin."""
    for name, value in headers:
        if name.lower() == b"content-type" and value.partition(b";")[0].strip().lower() in CONTENT_TYPES:
            return value
    return b"application/json"
