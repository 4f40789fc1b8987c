"""Small honest stand-ins for what lives in other processes; they have the same methods."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

import orjson

from deployments.contracts.errors import ExpertError
from deployments.contracts.heartbeats import Progress
from deployments.contracts.messages import NO_TRACE, Head, Headers, ReplicaLoad, RouterResponse
from deployments.contracts.protocols import ResponseStream
from router.core import Decision, ExpertView, RouteRequest

JSON = ((b"content-type", b"application/json"),)
EVENTS = ((b"content-type", b"text/event-stream; charset=utf-8"),)


class Clock:
    """Time that passes only by assignment."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class FakeExpert:
    """An expert that answers from a script: bytes to send, or an error to raise."""

    def __init__(self, name: str, *parts: Any, status: int = 200, headers: Headers = JSON) -> None:
        self.model = name
        self.parts: list[Any] = list(parts)
        self.status = status
        self.headers = headers
        self.asked: list[tuple[str, str, dict[bytes, bytes], bytes]] = []
        self.closed = 0
        self.retired = False
        self.load: ReplicaLoad | None = None
        self.observe: Callable[[], None] = lambda: None
        """Called with each request, before its response."""

    async def open(
        self,
        method: str,
        path: str,
        headers: Headers,
        body: bytes,
        timeout_s: float,
        connect_s: float | None = None,
        progress: Progress | None = None,
    ) -> ResponseStream:
        self.asked.append((method, path, dict(headers), body))
        self.observe()
        parts = self.parts or [answer(self.model)]
        if isinstance(parts[0], BaseException):
            raise parts[0]
        made = parts[0]() if callable(parts[0]) else parts[0]
        if not isinstance(made, bytes):
            await made
        first = made if isinstance(made, bytes) else b""
        return ResponseStream(
            Head(self.status, tuple(self.headers), first, complete=len(parts) == 1, load=self.load),
            self._rest(parts[1:]),
        )

    async def retire(self) -> None:
        self.retired = True

    async def _rest(self, parts: list[Any]) -> AsyncGenerator[bytes, None]:
        try:
            for part in parts:
                if isinstance(part, BaseException):
                    raise part
                await asyncio.sleep(0)
                made = part() if callable(part) else part
                if isinstance(made, bytes):
                    yield made
                else:
                    await made
        finally:
            self.closed += 1

    def body(self, index: int = -1) -> dict[str, Any]:
        """The body of a request that it got."""
        found: dict[str, Any] = orjson.loads(self.asked[index][3])
        return found


class FakeRouter:
    """A router that prefers experts in a given order, or returns a given response."""

    def __init__(self, *preferred: str) -> None:
        self.preferred = preferred
        self.asked: list[RouteRequest] = []
        self.traces: list[dict[str, str]] = []
        self.answer: Any = None

    async def decide(
        self, request: RouteRequest, timeout_s: float, trace: Mapping[str, str] = NO_TRACE
    ) -> RouterResponse:
        self.asked.append(request)
        self.traces.append(dict(trace))
        if isinstance(self.answer, BaseException):
            raise self.answer
        if self.answer is not None:
            response: RouterResponse = self.answer
            return response
        ranking = tuple(name for name in self.preferred if name not in request.excluded)
        views = {
            name: ExpertView(
                score=0.9 - 0.1 * slot,
                cost_usd=1e-6 * (slot + 1),
                ttft_ms=None,
                eligible=name not in request.excluded,
                excluded_because=request.excluded.get(name),
            )
            for slot, name in enumerate(self.preferred)
        }
        return RouterResponse(Decision(ranking, views, "0123456789ab"))


def answer(model: str, text: str = "42") -> bytes:
    """A chat completion as an expert gives it."""
    return orjson.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": model,
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            ],
            "usage": {"prompt_tokens": 11, "completion_tokens": 2, "total_tokens": 13},
        }
    )


def event(model: str, text: str, *, field: str = "content") -> bytes:
    """A chunk of a streamed chat completion, its text in this field of the delta."""
    data = orjson.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": model,
            "choices": [{"index": 0, "delta": {field: text}, "finish_reason": None}],
        }
    )
    return b"data: " + data + b"\n\n"


Fallible = Callable[[], ExpertError]
Experts = Mapping[str, FakeExpert]
