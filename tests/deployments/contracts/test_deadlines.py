"""Waiting with a limit: what comes, what does not, and who is told to stop at the very moment."""

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


async def test_who_is_cancelled_in_the_moment_of_the_result_is_cancelled() -> None:
    """The result is not lost on whoever computed it: a call that was taken can still be cancelled."""
    coming: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    taken: list[int] = []

    async def take() -> None:
        taken.append(await coming)

    waiting = asyncio.create_task(within(5, take()))
    await asyncio.sleep(0.01)
    coming.set_result(7)
    await asyncio.sleep(0)  # `take` runs to its end; who waits for it has not been told yet
    waiting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert taken == [7]


async def test_who_is_cancelled_cancels_what_it_waits_for() -> None:
    inner = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(within(5, inner))
    await asyncio.sleep(0)
    waiting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert inner.cancelled()
