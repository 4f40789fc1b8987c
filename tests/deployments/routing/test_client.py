"""The router's client: whatever happens to a replica is a `ConnectionError`, in time or a `TimeoutError`."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from deployments.routing.client import RouterClient
from router.core import RouteRequest


class Answer:
    """A call of the router's that ends in an error."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __await__(self) -> Any:
        yield from asyncio.sleep(0).__await__()
        raise self._error

    def cancel(self) -> None:
        pass


@pytest.mark.parametrize("error", [MemoryError(), KeyError("x"), asyncio.CancelledError()])
async def test_any_failure_of_a_router_replica_is_its_absence(error: BaseException) -> None:
    method = SimpleNamespace(remote=lambda *_: Answer(error))
    router = RouterClient(SimpleNamespace(options=lambda **_: method))

    with pytest.raises(ConnectionError):
        await router.decide(RouteRequest("hello"), 5)


async def test_a_router_that_does_not_respond_in_time_is_cancelled() -> None:
    cancelled: list[bool] = []

    class Silent(Answer):
        def __await__(self) -> Any:
            return asyncio.Event().wait().__await__()

        def cancel(self) -> None:
            cancelled.append(True)

    method = SimpleNamespace(remote=lambda *_: Silent(TimeoutError()))
    router = RouterClient(SimpleNamespace(options=lambda **_: method))

    with pytest.raises(TimeoutError):
        await router.describe(0.01)
    assert cancelled == [True]
