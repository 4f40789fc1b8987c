"""Hand an expert's answer on to the client: bytes untouched, our headers added.

A stream that breaks off after its first byte ends in one error event and `[DONE]`: there is no
second try then. Knows ASGI and server-sent events; nothing of Ray.
"""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from deployments.clients import HOP_HEADERS, OpenStream
from deployments.errors import ApiError, ExpertError, envelope, refusal

DONE = b"data: [DONE]\n\n"
TAIL_BYTES = 4096
"""Enough of a stream's end to find its usage and whether it ended properly."""


class Relay(Response):
    """An expert's 2xx answer on its way to the client."""

    def __init__(
        self,
        stream: OpenStream,
        headers: Mapping[str, str],
        *,
        kind: str,
        finished: Callable[["Relayed"], None],
    ) -> None:
        self._stream = stream
        self._kind = kind
        self._finished = finished
        self.status_code = stream.head.status
        self.background = None
        kept = [
            (name.lower(), value) for name, value in stream.head.headers if name.lower() not in HOP_HEADERS
        ]
        ours = [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
        names = {name for name, _ in ours}
        self.raw_headers = [*((name, value) for name, value in kept if name not in names), *ours]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        head = self._stream.head
        told = Relayed(streamed=not head.complete)
        try:
            if head.complete:
                length = (b"content-length", str(len(head.body)).encode())
                await send(
                    {
                        "type": "http.response.start",
                        "status": head.status,
                        "headers": [*self.raw_headers, length],
                    }
                )
                await send({"type": "http.response.body", "body": head.body})
                told.tail = head.body
                told.outcome = "complete"
            else:
                await send(
                    {"type": "http.response.start", "status": head.status, "headers": self.raw_headers}
                )
                await self._pass_on(send, told)
        finally:
            with contextlib.suppress(Exception):
                await self._stream.aclose()
            self._finished(told)

    async def _pass_on(self, send: Send, told: "Relayed") -> None:
        told.saw(self._stream.head.body)
        await send({"type": "http.response.body", "body": self._stream.head.body, "more_body": True})
        try:
            async for chunk in self._stream.rest:
                told.saw(chunk)
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except ExpertError:
            await self._break_off(send, told)
            return
        if self._kind in {"chat", "completions"} and DONE.strip() not in told.tail:
            await self._break_off(send, told)
            return
        told.outcome = "complete"
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _break_off(self, send: Send, told: "Relayed") -> None:
        """After the first byte there is no second try: say so and end properly."""
        told.outcome = "broken"
        error = envelope(
            "the expert broke off its answer; what came before this event is incomplete",
            "server_error",
            "stream_interrupted",
        )
        body = b"\n\n" + b"data: " + orjson.dumps(error) + b"\n\n" + DONE
        await send({"type": "http.response.body", "body": body, "more_body": False})


class Relayed:
    """What was seen of an answer while it passed: for accounting, never to change it."""

    def __init__(self, *, streamed: bool) -> None:
        self.streamed = streamed
        self.tail = b""
        self.events = 0
        self.outcome = "disconnected"

    def saw(self, chunk: bytes) -> None:
        """Bytes pass: remember the end, count the events."""
        self.events += chunk.count(b"data: ")
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


class Refused(Response):
    """One of our own error answers."""

    def __init__(self, error: ApiError, headers: Mapping[str, str] | None = None) -> None:
        answer = refusal(error)
        super().__init__(
            answer.body,
            answer.status,
            headers={**dict(answer.headers), **(headers or {})},
            media_type="application/json",
        )
