"""Blocking calls: one at a time for each concern, and no concern waits for another."""

import asyncio
import threading

import pytest

from deployments.contracts.blocking_calls import BlockingCalls


async def test_a_call_returns_its_result_and_raises_its_error() -> None:
    calls = BlockingCalls("test")

    assert await calls.run(lambda x: 2 * x, 21, timeout_s=5) == 42
    with pytest.raises(ZeroDivisionError):
        await calls.run(lambda: 1 // 0, timeout_s=5)
    assert await calls.run(str, timeout_s=5) == ""


async def test_no_call_begins_while_another_hangs(hang: threading.Event) -> None:
    calls, begun = BlockingCalls("test"), []
    with pytest.raises(TimeoutError):
        await calls.run(hang.wait, timeout_s=0.02)
    with pytest.raises(TimeoutError):
        await calls.run(begun.append, 1, timeout_s=0.02)
    hang.set()
    await calls.run(begun.append, 2, timeout_s=5)

    assert begun == [2]


async def test_a_hanging_call_delays_no_other_concern(hang: threading.Event) -> None:
    hanging = asyncio.create_task(BlockingCalls("hangs").run(hang.wait, timeout_s=5))
    await asyncio.sleep(0)

    assert await BlockingCalls("other").run(lambda: "on time", timeout_s=5) == "on time"
    hang.set()
    await hanging


async def test_an_error_after_the_deadline_disturbs_nothing(hang: threading.Event) -> None:
    def fails_late() -> None:
        hang.wait()
        raise ValueError("late")

    calls = BlockingCalls("test")
    with pytest.raises(TimeoutError):
        await calls.run(fails_late, timeout_s=0.02)
    hang.set()

    assert await calls.run(lambda: 1, timeout_s=5) == 1


async def test_a_result_that_nothing_waits_for_is_handed_over(hang: threading.Event) -> None:
    def late() -> str:
        hang.wait()
        return "late"

    calls, left = BlockingCalls("test"), list[str]()
    with pytest.raises(TimeoutError):
        await calls.run(late, timeout_s=0.02, unwanted=left.append)
    hang.set()
    await calls.run(str, timeout_s=5, unwanted=left.append)

    assert left == ["late"]
