"""Experts of this cluster: which failures of a handle mean absence, overload or a timeout."""

import asyncio
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
from deployments.upstream.http_client import RemoteExpert
from deployments.upstream.serve_client import ServeExpert, _unavailable, expert_client

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
