"""Hand an expert's answer on to the client: bytes untouched, our headers added.

A stream that breaks off after its first byte, or outlasts the request's deadline, ends in one error
event and `[DONE]`: there is no second try then. Knows ASGI and server-sent events; nothing of Ray.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from deployments.contracts.errors import ExpertError, envelope
from deployments.contracts.messages import Headers
from deployments.contracts.protocols import HOP_HEADERS, ResponseStream

logger = logging.getLogger("ray.serve")

DONE = b"data: [DONE]\n\n"
ENDINGS: Mapping[str, tuple[bytes, ...]] = {
    "responses": (
        b"event: response.completed",
        b"event: response.incomplete",
        b"event: response.failed",
        DONE.strip(),
    ),
    "messages": (b"event: message_stop", b"event: error", DONE.strip()),
}
"""A line of a stream's last event, by endpoint, where that is not OpenAI's `[DONE]`."""
LONGEST_ENDING = 32
MOST_HELD_BYTES = 1024 * 1024
"""An unfinished event longer than this is handed on as it comes."""
INTERRUPTED = ("the expert broke off its answer", "stream_interrupted")
OUT_OF_TIME = ("the request's deadline passed before the answer ended", "deadline_exceeded")
TAIL_BYTES = 16 * 1024
"""Enough of a stream's end to find its usage and whether it ended properly."""


class Relay(Response):
    """An expert's 2xx answer on its way to the client.

    Args:
        left_s: how much time is left for a stream to end, in seconds.
    """

    def __init__(
        self,
        stream: ResponseStream,
        headers: Mapping[str, str],
        *,
        kind: str,
        left_s: Callable[[], float],
        finished: Callable[["StreamObserver"], None],
    ) -> None:
        self._stream = stream
        self._left_s = left_s
        self._kind = kind
        self._finished = finished
        self.status_code = stream.head.status
        self.background = None
        kept = [(name.lower(), value) for name, value in stream.head.headers if _handed_on(name.lower())]
        ours = [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
        names = {name for name, _ in ours}
        self.raw_headers = [*((name, value) for name, value in kept if name not in names), *ours]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        head = self._stream.head
        # A short stream may come in one piece: it is one by its type.
        whole = head.complete and not _is_event_stream(head.headers)
        told = StreamObserver(self._kind, streamed=not whole)
        headers = list(self.raw_headers)
        if whole:
            headers.append((b"content-length", str(len(head.body)).encode()))
        try:
            await send({"type": "http.response.start", "status": head.status, "headers": headers})
            if whole:
                await send({"type": "http.response.body", "body": head.body})
                told.tail = head.body
                told.outcome = "complete"
            else:
                await self._pass_on(send, told)
        finally:
            try:
                await self._stream.aclose()
            except ExpertError:
                logger.info("an expert failed while its stream was closed")
            finally:
                self._finished(told)

    async def _pass_on(self, send: Send, told: "StreamObserver") -> None:
        """Hand on whole events only, so that one that breaks off midway never reaches the client."""
        held = self._stream.head.body
        try:
            async with asyncio.timeout(self._left_s()):
                held = await _send_events(send, told, held)
                async for chunk in self._stream.rest:
                    held = await _send_events(send, told, held + chunk)
        except ExpertError:
            await _break_off(send, told, INTERRUPTED)
            return
        except TimeoutError:
            if not told.ended:
                await _break_off(send, told, OUT_OF_TIME)
                return
        if held.strip() == DONE.strip():
            held = DONE  # understood without its blank line, and handed on with it
        if told.ended or held == DONE:
            told.saw(held)
            await send({"type": "http.response.body", "body": held, "more_body": True})
        if not told.ended:
            await _break_off(send, told, INTERRUPTED)
            return
        told.outcome = "complete"
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _break_off(send: Send, told: "StreamObserver", why: tuple[str, str]) -> None:
    """After the first byte there is no second try: say so and end properly."""
    told.outcome = "broken"
    message, code = why
    error = envelope(f"{message}; what came before this event is incomplete", "server_error", code)
    body = b"data: " + orjson.dumps(error) + b"\n\n" + DONE
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def _send_events(send: Send, told: "StreamObserver", held: bytes) -> bytes:
    """Send all whole events of `held`; return the unfinished rest."""
    end = max(held.rfind(blank) + len(blank) if blank in held else 0 for blank in (b"\n\n", b"\r\n\r\n"))
    if len(held) - end > MOST_HELD_BYTES:
        end = len(held)
    if end:
        told.saw(held[:end])
        await send({"type": "http.response.body", "body": held[:end], "more_body": True})
    return held[end:]


def _is_event_stream(headers: Headers) -> bool:
    return any(name.lower() == b"content-type" and b"event-stream" in value for name, value in headers)


def _handed_on(name: bytes) -> bool:
    """Whether an expert's header belongs to its answer: not the hop's, not ours, no cookies."""
    return not (
        name in HOP_HEADERS
        or name in {b"set-cookie", b"alt-svc", b"strict-transport-security", b"content-length"}
        or name.startswith((b"x-router-", b"access-control-", b"x-ratelimit-"))
    )


class StreamObserver:
    """What was seen of an answer while it passed: for accounting, never to change it."""

    def __init__(self, kind: str, *, streamed: bool) -> None:
        endings = ENDINGS.get(kind, (DONE.strip(),))
        self._ends = tuple(ending + end_of_line for ending in endings for end_of_line in (b"\n", b"\r"))
        self.ended = not streamed
        self.streamed = streamed
        self.tail = b""
        self.events = 0
        self.outcome = "disconnected"

    def saw(self, chunk: bytes) -> None:
        """Bytes pass: remember the end, count the events, notice the one that ends them."""
        self.events += chunk.count(b"data: ")
        seam = self.tail[-LONGEST_ENDING:] + chunk
        self.ended = self.ended or any(ending in seam for ending in self._ends)
        self.tail = (self.tail + chunk)[-TAIL_BYTES:]

    def usage(self) -> tuple[int, int] | None:
        """(prompt, completion) tokens as the expert reported them; `None` where it did not."""
        if not self.streamed:
            return _usage_of(self.tail)
        for line in reversed(self.tail.split(b"\n")):
            if line.startswith(b"data: {") and (found := _usage_of(line[6:])):
                return found
        return None


def _usage_of(body: bytes) -> tuple[int, int] | None:
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    usage = _find_usage(data)
    if usage is None:
        return None
    prompt = usage.get("prompt_tokens", usage.get("input_tokens"))
    completion = usage.get("completion_tokens", usage.get("output_tokens", 0))
    return (prompt, completion) if isinstance(prompt, int) and isinstance(completion, int) else None


def _find_usage(data: Any) -> Mapping[str, Any] | None:
    """The usage block: at the top, or inside the last event of /v1/responses."""
    if not isinstance(data, dict):
        return None
    usage = data.get("usage")
    if isinstance(usage, dict):
        return usage
    return _find_usage(data.get("response"))
