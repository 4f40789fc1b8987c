"""Experts of this cluster: which failures of a handle mean absence, overload or a timeout."""

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from functools import cached_property
from types import SimpleNamespace

import pytest

from deployments.config import ExpertTarget
from deployments.contracts.errors import (
    ExpertError,
    ExpertOverloaded,
    ExpertTimeout,
    ExpertUnavailable,
    ExpertUnreachable,
)
from deployments.contracts.heartbeats import Progress
from deployments.contracts.messages import HEARTBEAT, HEARTBEATS, Head
from deployments.upstream import serve_client
from deployments.upstream.http_client import RemoteExpert
from deployments.upstream.serve_client import ServeExpert, _unavailable, expert_client
from tests.deployments.harness import settle

URL = "http://expert.example/v1"
CHAT = "/v1/chat/completions"


def test_an_experts_target_decides_its_client() -> None:
    assert isinstance(expert_client("a", ExpertTarget(app="expert-a")), ServeExpert)
    assert isinstance(expert_client("a", ExpertTarget(url=URL)), RemoteExpert)


def test_a_full_queue_is_overload_and_other_failures_are_absence() -> None:
    from ray.exceptions import ActorUnavailableError
    from ray.serve.exceptions import BackPressureError

    overloaded = _unavailable("a", BackPressureError(num_queued_requests=1, max_queued_requests=1))

    assert isinstance(overloaded, ExpertOverloaded)
    assert isinstance(_unavailable("a", ActorUnavailableError("x", b"1" * 16)), ExpertUnavailable)
    assert isinstance(_unavailable("a", RuntimeError("x")), ExpertUnavailable)


class Call:
    """A call on a handle that no replica takes."""

    def __init__(self) -> None:
        self.cancelled = False

    async def _fetch_future_result_async(self) -> None:
        await asyncio.Event().wait()

    def cancel(self) -> None:
        self.cancelled = True


async def untaken(**limits: float) -> tuple[Call, Exception]:
    call = Call()
    expert = ServeExpert("a", "expert-a")
    expert._handle = SimpleNamespace(remote=lambda *_: call)
    with pytest.raises(ExpertError) as raised:
        await expert.open("POST", CHAT, (), b"{}", **limits)
    return call, raised.value


async def test_a_request_that_no_replica_takes_in_time_is_absence() -> None:
    call, error = await untaken(timeout_s=5, connect_s=0.01)

    assert isinstance(error, ExpertUnreachable)
    assert "no replica took the request within 0.0 s" in str(error)
    assert call.cancelled


async def test_without_a_limit_to_connect_it_is_a_timeout() -> None:
    call, error = await untaken(timeout_s=0.01)

    assert isinstance(error, ExpertTimeout)
    assert call.cancelled


class Replies:
    """A call on a handle whose replica sends the given parts; `None` is one that never comes."""

    def __init__(self, *parts: Head | bytes | None) -> None:
        self.parts = parts
        self.cancelled = False
        self.ended = False

    async def _fetch_future_result_async(self) -> None:
        """A replica takes it at once."""

    def __aiter__(self) -> AsyncIterator[Head | bytes]:
        return self._iterator

    def __anext__(self) -> Awaitable[Head | bytes]:
        return anext(self._iterator)

    @cached_property
    def _iterator(self) -> AsyncGenerator[Head | bytes, None]:
        return self._parts()

    async def _parts(self) -> AsyncGenerator[Head | bytes, None]:
        for part in self.parts:
            if part is None:
                await asyncio.Event().wait()
            else:
                yield part
        self.ended = True

    def cancel(self) -> None:
        self.cancelled = True


def expert_that_replies(call: Replies) -> tuple[ServeExpert, list[tuple[object, ...]]]:
    calls = []

    def remote(*args: object) -> Replies:
        calls.append(args)
        return call

    expert = ServeExpert("a", "expert-a")
    expert._handle = SimpleNamespace(remote=remote)
    return expert, calls


async def test_heartbeats_are_noted_and_are_no_response() -> None:
    ticks = itertools.count()
    progress = Progress(5, lambda: next(ticks))
    head = Head(200, (), b"{}", complete=True)
    expert, calls = expert_that_replies(Replies(HEARTBEAT, HEARTBEAT, head))
    stream = await expert.open("POST", CHAT, (), b"{}", 5, None, progress)

    assert stream.head == head
    assert calls[0][2] == (HEARTBEATS,)
    assert progress.silent_s() == 1


async def test_silence_for_too_long_is_a_timeout() -> None:
    call = Replies(HEARTBEAT, None)
    expert, _ = expert_that_replies(call)

    with pytest.raises(ExpertTimeout):
        await expert.open("POST", CHAT, (), b"{}", 5, None, Progress(0.01))
    assert call.cancelled


async def test_a_call_without_progress_wants_no_heartbeats() -> None:
    expert, calls = expert_that_replies(Replies(Head(200, (), b"x", complete=False), b"y"))
    stream = await expert.open("POST", CHAT, (), b"{}", 5)

    assert calls[0][2] == ()
    assert [chunk async for chunk in stream.rest] == [b"y"]


async def test_a_stream_closed_unread_ends_the_call() -> None:
    call = Replies(Head(200, (), b"x", complete=False), b"y")
    expert, _ = expert_that_replies(call)
    await (await expert.open("POST", CHAT, (), b"{}", 5)).aclose()

    assert call.cancelled


async def test_a_call_with_a_complete_response_is_read_to_its_end() -> None:
    call = Replies(Head(200, (), b"x", complete=True))
    expert, _ = expert_that_replies(call)
    await (await expert.open("POST", CHAT, (), b"{}", 5)).aclose()
    await settle()

    assert call.ended
    assert not call.cancelled


async def test_a_call_that_does_not_end_after_its_response_is_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(serve_client, "END_WITHIN_S", 0.0)
    call = Replies(Head(200, (), b"x", complete=True), None)
    expert, _ = expert_that_replies(call)
    await expert.open("POST", CHAT, (), b"{}", 5)
    await settle()

    assert call.cancelled


class Handle:
    """A handle that Serve lets be configured on an event loop only, as with its router on our loop."""

    configured = 0

    def options(self, **_: object) -> "Handle":
        asyncio.get_running_loop()
        self.configured += 1
        return self


async def test_a_handle_is_configured_once_and_on_the_event_loop() -> None:
    handle = Handle()
    expert = ServeExpert("a", "expert-a", handle_for=lambda *_: handle)

    found = await asyncio.gather(*(expert._resolve(5) for _ in range(3)))

    assert found == [handle] * 3
    assert handle.configured == 1
