"""Slots, queue, priorities, and early rejection."""

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.contracts.errors import TooMany, Unavailable
from deployments.limits.admission import INTERACTIVE_PER_BATCH, AdmissionQueue, Priority, acquire_any
from tests.deployments.fakes import Clock


def admission(
    slots: int = 1, max_queued: int = 4, max_wait_s: float = 60.0, **options: Any
) -> AdmissionQueue:
    return AdmissionQueue(slots, max_queued=max_queued, max_wait_s=max_wait_s, **options)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_slot_is_acquired_and_released() -> None:
    queue = admission(slots=2)
    await queue.acquire("interactive", 1)
    await queue.acquire("batch", 1)

    assert queue.held == 2
    queue.release()
    assert queue.held == 1


async def test_waiting_requests_get_free_slots_in_order() -> None:
    queue = admission()
    await queue.acquire("interactive", 1)
    order: list[int] = []

    async def one(number: int) -> None:
        await queue.acquire("interactive", 60)
        order.append(number)
        queue.release()

    tasks = [asyncio.create_task(one(number)) for number in range(3)]
    await settle()
    assert queue.queued == 3
    queue.release()
    await asyncio.gather(*tasks)

    assert order == [0, 1, 2]
    assert (queue.held, queue.queued) == (0, 0)


async def test_interactive_goes_before_batch_but_batch_does_not_starve() -> None:
    queue = admission(max_queued=32)
    await queue.acquire("interactive", 1)
    order: list[str] = []

    async def one(priority: Priority) -> None:
        await queue.acquire(priority, 60)
        order.append(priority)
        queue.release()

    kinds: list[Priority] = ["batch", "batch", *["interactive"] * 10]  # type: ignore[list-item]
    tasks = [asyncio.create_task(one(kind)) for kind in kinds]
    await settle()
    queue.release()
    await asyncio.gather(*tasks)

    first_batch = order.index("batch")
    assert first_batch == INTERACTIVE_PER_BATCH
    assert order[first_batch + 1 :].index("batch") == INTERACTIVE_PER_BATCH


async def test_a_full_queue_rejects_with_429_and_a_retry_after() -> None:
    queue = admission(max_queued=1)
    await queue.acquire("interactive", 1)
    waiting = asyncio.create_task(queue.acquire("interactive", 60))
    await settle()

    with pytest.raises(TooMany) as caught:
        await queue.acquire("interactive", 60)
    with pytest.raises(TooMany):
        queue.reject_early()
    assert caught.value.code == "queue_full"
    assert (caught.value.retry_after_s or 0) > 0
    waiting.cancel()


async def test_an_interactive_request_displaces_the_youngest_batch_request() -> None:
    queue = admission(max_queued=2)
    await queue.acquire("interactive", 1)
    older, younger = (asyncio.create_task(queue.acquire("batch", 60)) for _ in range(2))
    await settle()
    queue.reject_early()
    newcomer = asyncio.create_task(queue.acquire("interactive", 60))
    await settle()

    with pytest.raises(TooMany):
        await younger
    assert not older.done()
    queue.release()
    await newcomer
    older.cancel()


async def test_no_request_waits_longer_than_the_longest_wait() -> None:
    queue = admission(max_wait_s=0.01)
    await queue.acquire("interactive", 1)

    with pytest.raises(Unavailable) as caught:
        await queue.acquire("interactive", 60)
    assert caught.value.code == "queue_timeout"
    assert queue.queued == 0


async def test_a_cancelled_request_leaves_the_queue_at_once() -> None:
    queue = admission(max_queued=1)
    await queue.acquire("interactive", 1)
    leaver = asyncio.create_task(queue.acquire("interactive", 60))
    await settle()
    leaver.cancel()
    await settle()

    assert queue.queued == 0
    assert queue.held == 1


async def test_a_slot_granted_while_leaving_goes_to_the_next() -> None:
    queue = admission()
    await queue.acquire("interactive", 1)
    leaver = asyncio.create_task(queue.acquire("interactive", 60))
    stayer = asyncio.create_task(queue.acquire("interactive", 60))
    await settle()
    queue.release()
    leaver.cancel()
    await stayer

    assert (queue.held, queue.queued) == (1, 0)
    assert leaver.cancelled()


async def test_retry_after_follows_the_measured_drain_rate() -> None:
    clock = Clock()
    queue = admission(slots=10, max_queued=0, clock=clock)
    for _ in range(10):
        await queue.acquire("interactive", 1)
    for _ in range(5):
        clock.now += 2.0
        queue.release()
        await queue.acquire("interactive", 1)
    slow = queue.retry_after_s()
    for _ in range(5):
        clock.now += 0.1
        queue.release()
        await queue.acquire("interactive", 1)

    assert slow == pytest.approx(2.0, rel=0.01)
    assert queue.retry_after_s() < slow


async def test_a_request_that_would_wait_in_vain_is_rejected_at_once() -> None:
    clock = Clock()
    queue = admission(slots=3, max_queued=100, clock=clock)
    for _ in range(3):
        await queue.acquire("interactive", 1)
    for _ in range(2):
        clock.now += 5.0
        queue.release()
        await queue.acquire("interactive", 1)
    waiting = asyncio.create_task(queue.acquire("interactive", 60))
    await settle()

    with pytest.raises(TooMany):
        await queue.acquire("interactive", 5.0)
    waiting.cancel()


async def test_idle_time_does_not_count_as_drain_time() -> None:
    clock = Clock()
    queue = admission(slots=2, max_queued=100, clock=clock)
    for _ in range(4):
        await queue.acquire("interactive", 1)
        await queue.acquire("interactive", 1)
        clock.now += 0.5
        queue.release()
        queue.release()
        clock.now += 3600.0
    for _ in range(2):
        await queue.acquire("interactive", 1)
    waiting = [asyncio.create_task(queue.acquire("interactive", 60)) for _ in range(10)]
    await settle()

    # Two slots every half second: the eleventh to wait gets one long before ten seconds are over.
    last = asyncio.create_task(queue.acquire("interactive", 10.0))
    await settle()
    assert not last.done()
    assert queue.retry_after_s() < 10
    for task in (*waiting, last):
        task.cancel()


async def test_traffic_in_waves_does_not_hide_the_drain_rate() -> None:
    clock = Clock()
    queue = admission(slots=16, max_queued=0, clock=clock)
    for _ in range(4):
        for _ in range(16):
            await queue.acquire("interactive", 1)
        clock.now += 5.0
        for _ in range(16):
            queue.release()
        clock.now += 5.0

    # Sixteen in five seconds; the second half of a wave, with fewer slots held, is not counted.
    assert (queue.drain_per_s() or 0) > 1.6


async def test_of_several_queues_the_first_free_slot_is_taken() -> None:
    queues = [admission(), admission(), admission()]
    entered = [await acquire_any(queues, "interactive", 1) for _ in queues]
    waiting = [asyncio.create_task(acquire_any(queues, "interactive", 60)) for _ in range(2)]
    await settle()
    queued = [queue.queued for queue in queues]
    queues[2].release()
    queues[1].release()

    assert entered == queues
    assert queued == [2, 2, 2]
    assert [await task for task in waiting] == [queues[2], queues[1]]
    assert [(queue.held, queue.queued) for queue in queues] == [(1, 0)] * 3


async def test_a_slot_of_several_queues_granted_while_leaving_is_freed() -> None:
    queues = [admission(), admission()]
    for queue in queues:
        await queue.acquire("interactive", 1)
    leaver = asyncio.create_task(acquire_any(queues, "batch", 60))
    await settle()
    queues[1].release()
    leaver.cancel()
    await settle()

    assert [(queue.held, queue.queued) for queue in queues] == [(1, 0), (0, 0)]


async def test_several_queues_reject_only_when_each_is_full() -> None:
    queues = [admission(max_queued=0), admission(max_queued=1)]
    for queue in queues:
        await queue.acquire("interactive", 1)
    waiting = asyncio.create_task(acquire_any(queues, "interactive", 60))
    await settle()

    with pytest.raises(TooMany):
        await acquire_any(queues, "interactive", 60)
    queues[1].release()
    assert await waiting is queues[1]


async def test_several_queues_drain_together() -> None:
    clock = Clock()
    queues = [admission(slots=2, max_queued=9, clock=clock) for _ in range(2)]
    for queue in queues:
        await queue.acquire("interactive", 1)
        await queue.acquire("interactive", 1)
    for _ in range(2):
        clock.now += 5.0  # a slot every five seconds of each
        for queue in queues:
            queue.release()
            await queue.acquire("interactive", 1)
    waiting = [asyncio.create_task(acquire_any(queues, "interactive", 60)) for _ in range(2)]
    await settle()

    # The third to wait: 15 s in one queue, 7.5 s in two.
    with pytest.raises(TooMany):
        await acquire_any(queues[:1], "interactive", 10.0)
    third = asyncio.create_task(acquire_any(queues, "interactive", 10.0))
    await settle()
    assert not third.done()
    for task in (*waiting, third):
        task.cancel()


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(st.tuples(st.sampled_from(["enter", "batch", "leave", "cancel"]), st.integers(0, 9))))
def test_slots_and_queue_never_exceed_their_bounds(steps: list[tuple[str, int]]) -> None:
    async def play() -> None:
        queue = admission(slots=3, max_queued=4)
        tasks: list[asyncio.Task[None]] = []
        for step, number in steps:
            if step in {"enter", "batch"}:
                kind: Priority = "interactive" if step == "enter" else "batch"
                tasks.append(asyncio.create_task(queue.acquire(kind, 60)))
            elif step == "leave" and queue.held:
                queue.release()
            elif step == "cancel" and tasks:
                tasks[number % len(tasks)].cancel()
            await settle()
            assert 0 <= queue.held <= 3
            assert queue.queued <= 4
            assert queue.held == 3 or queue.queued == 0
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert queue.queued == 0

    asyncio.run(play())


async def test_a_request_occupies_a_slot_for_each_of_its_sequences() -> None:
    queue = AdmissionQueue(4, max_queued=10, max_wait_s=1.0)
    await queue.acquire("interactive", 1.0)
    await queue.acquire("interactive", 1.0)
    held = queue.occupy(500)
    waiting = asyncio.ensure_future(queue.acquire("interactive", 1.0))
    queue.release()
    await asyncio.sleep(0)

    assert (held, queue.held, waiting.done()) == (4, 4, False)
    queue.release(held)
    await waiting
    assert queue.held == 1
