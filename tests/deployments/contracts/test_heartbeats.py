"""Heartbeats before the head of a response: while the engine takes steps, and only then."""

import asyncio
import itertools
from collections.abc import AsyncGenerator

import pytest

from deployments.contracts.heartbeats import Progress, with_heartbeats
from deployments.contracts.messages import HEARTBEAT, Head
from tests.deployments.fakes import JSON, Clock

HEAD = Head(200, JSON, b"{}", complete=False)


class Response:
    """A response whose head waits for a release."""

    def __init__(self) -> None:
        self.released = asyncio.Event()
        self.closed = False

    async def parts(self) -> AsyncGenerator[Head | bytes, None]:
        try:
            await self.released.wait()
            yield HEAD
            yield b"rest"
        finally:
            self.closed = True


async def test_heartbeats_come_while_steps_are_taken() -> None:
    response = Response()
    steps = itertools.count()
    parts = with_heartbeats(response.parts(), lambda: next(steps), period_s=0.001)

    assert [await anext(parts) for _ in range(3)] == [HEARTBEAT] * 3
    response.released.set()
    rest = [part async for part in parts]
    assert rest[-2:] == [HEAD, b"rest"]
    assert response.closed


async def test_an_engine_without_steps_is_silent() -> None:
    response = Response()
    looks = itertools.count()

    def steps() -> int:
        if next(looks) == 20:
            response.released.set()
        return 7

    parts = [part async for part in with_heartbeats(response.parts(), steps, period_s=0.001)]

    assert parts == [HEAD, b"rest"]


async def test_leaving_between_heartbeats_closes_the_response() -> None:
    response = Response()
    steps = itertools.count()
    parts = with_heartbeats(response.parts(), lambda: next(steps), period_s=0.001)
    await anext(parts)
    await parts.aclose()

    assert response.closed


async def test_a_cancelled_wait_closes_the_response() -> None:
    response = Response()
    waiting = asyncio.ensure_future(anext(with_heartbeats(response.parts(), lambda: 0)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    assert response.closed


async def test_an_error_before_the_head_reaches_the_caller() -> None:
    async def parts() -> AsyncGenerator[Head | bytes, None]:
        await asyncio.sleep(0)
        raise ValueError("inside")
        yield HEAD

    with pytest.raises(ValueError, match="inside"):
        [part async for part in with_heartbeats(parts(), lambda: 0)]


def test_silence_is_counted_from_the_last_progress() -> None:
    clock = Clock()
    progress = Progress(30, clock)
    clock.now += 20
    before = progress.silent_s()
    progress.note()
    clock.now += 5

    assert (before, progress.silent_s()) == (20, 5)
