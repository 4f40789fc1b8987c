"""Ask the experts of a ranking in turn until one answers; before the first byte only.

Knows nothing of HTTP clients: it returns an opened stream, or raises what the client shall see.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import orjson

from deployments.asgi import Headers
from deployments.ask import Ask
from deployments.choosing import Choice
from deployments.clients import ExpertClient, OpenStream
from deployments.errors import (
    ApiError,
    BadRequest,
    DeadlineExceeded,
    ExpertBroken,
    ExpertError,
    ExpertOverloaded,
    ExpertTimeout,
    ExpertUnavailable,
    Unavailable,
    from_expert,
)
from deployments.health import Answer, ExpertHealth

MOST_ERROR_BYTES = 64 * 1024
"""An expert's refusal is read this far, no further."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One expert asked: which, how it ended, how long it took."""

    expert: str
    outcome: str
    seconds: float


@dataclass(slots=True)
class Opened:
    """An expert's 2xx answer, begun."""

    expert: str
    stream: OpenStream
    attempts: tuple[Attempt, ...]
    ttft_s: float


class Deadline:
    """The one deadline of a request, which all its attempts share."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.seconds = seconds
        self._at = clock() + seconds

    def left_s(self) -> float:
        return self._at - self._clock()


class Dispatcher:
    """Asks experts, and learns how they do."""

    def __init__(
        self,
        clients: Mapping[str, ExpertClient],
        health: Mapping[str, ExpertHealth],
        *,
        first_byte_limit_s: float,
        clock: Callable[[], float] = time.monotonic,
        observe: Callable[[Attempt], None] = lambda _: None,
    ) -> None:
        self.clients = clients
        self.health = health
        self.first_byte_limit_s = first_byte_limit_s
        self._clock = clock
        self._observe = observe

    async def open(self, ask: Ask, choice: Choice, headers: Headers, deadline: Deadline) -> Opened:
        """The first answer that a ranking's experts give.

        Raises:
            ApiError: an expert refused the request itself (its 4xx, in our envelope), or none could
                answer within the deadline.
        """
        attempts: list[Attempt] = []
        last: ExpertError | ApiError | None = None
        candidates = choice.ranking if choice.fallback else choice.ranking[:1]
        for position, name in enumerate(candidates):
            left_s = deadline.left_s()
            if left_s <= 0:
                break
            is_last = position == len(candidates) - 1
            limit_s = (
                left_s if is_last else self.health[name].limit_s(_waited_for(ask), self.first_byte_limit_s)
            )
            started = self._clock()
            try:
                stream = await self._attempt(name, ask, headers, min(left_s, limit_s))
            except ExpertError as error:
                last = error
                attempts.append(self._note(name, _outcome(error), started))
                continue
            except BadRequest as error:
                if error.code != "context_length_exceeded" or not choice.fallback:
                    raise
                # Its window is smaller than the estimate said: as good as ineligible.
                last = error
                attempts.append(self._note(name, "context_length", started))
                continue
            attempts.append(self._note(name, "answered", started))
            return Opened(name, stream, tuple(attempts), attempts[-1].seconds)
        raise self._give_up(last, attempts, deadline)

    async def _attempt(self, name: str, ask: Ask, headers: Headers, limit_s: float) -> OpenStream:
        client, health = self.clients[name], self.health[name]
        started = self._clock()
        health.started()
        try:
            stream = await client.open("POST", ask.path, headers, ask.body_for(client.model), limit_s)
            if stream.head.status >= 300:
                raise await _refused(name, stream)
            if not ask.stream:
                await _complete(name, stream, limit_s - (self._clock() - started))
        except ExpertOverloaded:
            health.abandoned()  # busy is not broken
            raise
        except ExpertError:
            health.failed()
            raise
        except ApiError:
            health.alive()  # it found fault with the request
            raise
        except BaseException:
            health.abandoned()
            raise
        health.succeeded(_waited_for(ask), self._clock() - started)
        return stream

    def _note(self, name: str, outcome: str, started: float) -> Attempt:
        attempt = Attempt(name, outcome, self._clock() - started)
        self._observe(attempt)
        return attempt

    def _give_up(
        self, last: ExpertError | ApiError | None, attempts: list[Attempt], deadline: Deadline
    ) -> ApiError:
        told = ", ".join(f"{attempt.expert} ({attempt.outcome})" for attempt in attempts) or "none"
        if isinstance(last, ApiError):
            return last
        if deadline.left_s() <= 0 or isinstance(last, ExpertTimeout):
            return DeadlineExceeded(f"no expert answered within {deadline.seconds:g} s; asked: {told}")
        wait_s = max((self.health[attempt.expert].retry_after_s() for attempt in attempts), default=0.0)
        code = "expert_overloaded" if isinstance(last, ExpertOverloaded) else "expert_unavailable"
        return Unavailable(f"no expert could answer; asked: {told}", code, None, max(1.0, wait_s))


async def _refused(name: str, stream: OpenStream) -> ExpertError | ApiError:
    """What an answer that is no 2xx means."""
    body = stream.head.body
    try:
        if not stream.head.complete:
            async for chunk in stream.rest:
                body += chunk
                if len(body) > MOST_ERROR_BYTES:
                    break
    finally:
        await stream.aclose()
    status = stream.head.status
    if status in {429, 503}:
        return ExpertOverloaded(name, f"answered {status}")
    if status >= 500 or status < 400:
        return ExpertBroken(name, f"answered {status}")
    return from_expert(status, body)


async def _complete(name: str, stream: OpenStream, limit_s: float) -> None:
    """Read a whole answer, so that half a one or garbage can still be answered by another expert.

    Raises:
        ExpertTimeout: it did not end within `limit_s`.
        ExpertUnavailable: the expert went away.
        ExpertBroken: it is not JSON.
    """
    body = stream.head.body
    if not stream.head.complete:
        try:
            async with asyncio.timeout(max(limit_s, 0.0)):
                body += b"".join([chunk async for chunk in stream.rest])
        except TimeoutError as error:
            raise ExpertTimeout(name, "no whole answer in time") from error
        finally:
            await stream.aclose()
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ExpertBroken(name, "answered 200 with a body that is not JSON") from error
    stream.head = type(stream.head)(stream.head.status, stream.head.headers, body, complete=True)


def _waited_for(ask: Ask) -> Answer:
    return "stream" if ask.stream else "whole"


def _outcome(error: ExpertError) -> str:
    names = {
        ExpertTimeout: "timeout",
        ExpertOverloaded: "overloaded",
        ExpertUnavailable: "unavailable",
        ExpertBroken: "broken",
    }
    return names.get(type(error), "failed")
