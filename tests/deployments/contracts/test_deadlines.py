"""Bounded waits: results, timeouts, and a cancellation at the time of the result."""

import asyncio

import pytest

from deployments.contracts.deadlines import within


async def test_what_comes_in_time_is_handed_on() -> None:
    async def soon() -> int:
        await asyncio.sleep(0)
        return 7

    assert await within(5, soon()) == 7


async def test_what_does_not_come_is_cancelled() -> None:
    cancelled = asyncio.Event()

    async def never() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with pytest.raises(TimeoutError):
        await within(0.01, never())
    assert cancelled.is_set()


async def test_no_time_left_is_a_timeout() -> None:
    with pytest.raises(TimeoutError):
        await within(-1.0, asyncio.Event().wait())


async def test_a_failure_is_raised_as_it_is() -> None:
    async def failing() -> None:
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError, match="gone"):
        await within(5, failing())


async def test_a_cancellation_at_the_time_of_the_result_is_kept() -> None:
    """The result is not lost on its maker: a call that was accepted can still be cancelled."""
    coming: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    taken: list[int] = []

    async def take() -> None:
        taken.append(await coming)

    waiting = asyncio.create_task(within(5, take()))
    await asyncio.sleep(0.01)
    coming.set_result(7)
    await asyncio.sleep(0)  # `take` runs to its end; its waiter has not seen that yet
    waiting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert taken == [7]


async def test_a_cancelled_wait_cancels_its_awaitable() -> None:
    inner = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(within(5, inner))
    await asyncio.sleep(0)
    waiting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert inner.cancelled()
