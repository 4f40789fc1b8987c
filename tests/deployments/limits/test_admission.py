"""Places, queue, priorities, and refusals that come early."""

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.contracts.errors import TooMany, Unavailable
from deployments.limits.admission import INTERACTIVE_PER_BATCH, AdmissionQueue, Priority, acquire_any
from tests.deployments.fakes import Clock


def gate(slots: int = 1, max_queued: int = 4, max_wait_s: float = 60.0, **options: Any) -> AdmissionQueue:
    return AdmissionQueue(slots, max_queued=max_queued, max_wait_s=max_wait_s, **options)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_place_is_taken_and_given_back() -> None:
    door = gate(slots=2)
    await door.acquire("interactive", 1)
    await door.acquire("batch", 1)

    assert door.held == 2
    door.release()
    assert door.held == 1


async def test_who_waits_gets_the_place_that_comes_free_in_order() -> None:
    door = gate()
    await door.acquire("interactive", 1)
    order: list[int] = []

    async def one(number: int) -> None:
        await door.acquire("interactive", 60)
        order.append(number)
        door.release()

    tasks = [asyncio.create_task(one(number)) for number in range(3)]
    await settle()
    assert door.queued == 3
    door.release()
    await asyncio.gather(*tasks)

    assert order == [0, 1, 2]
    assert (door.held, door.queued) == (0, 0)


async def test_interactive_goes_before_batch_but_batch_does_not_starve() -> None:
    door = gate(max_queued=32)
    await door.acquire("interactive", 1)
    order: list[str] = []

    async def one(priority: Priority) -> None:
        await door.acquire(priority, 60)
        order.append(priority)
        door.release()

    kinds: list[Priority] = ["batch", "batch", *["interactive"] * 10]  # type: ignore[list-item]
    tasks = [asyncio.create_task(one(kind)) for kind in kinds]
    await settle()
    door.release()
    await asyncio.gather(*tasks)

    first_batch = order.index("batch")
    assert first_batch == INTERACTIVE_PER_BATCH
    assert order[first_batch + 1 :].index("batch") == INTERACTIVE_PER_BATCH


async def test_a_full_queue_refuses_with_429_and_a_time_to_come_back() -> None:
    door = gate(max_queued=1)
    await door.acquire("interactive", 1)
    waiting = asyncio.create_task(door.acquire("interactive", 60))
    await settle()

    with pytest.raises(TooMany) as caught:
        await door.acquire("interactive", 60)
    with pytest.raises(TooMany):
        door.refuse_early()
    assert caught.value.code == "queue_full"
    assert (caught.value.retry_after_s or 0) > 0
    waiting.cancel()


async def test_an_interactive_request_displaces_the_youngest_batch_request() -> None:
    door = gate(max_queued=2)
    await door.acquire("interactive", 1)
    older, younger = (asyncio.create_task(door.acquire("batch", 60)) for _ in range(2))
    await settle()
    door.refuse_early()
    newcomer = asyncio.create_task(door.acquire("interactive", 60))
    await settle()

    with pytest.raises(TooMany):
        await younger
    assert not older.done()
    door.release()
    await newcomer
    older.cancel()


async def test_nobody_waits_longer_than_the_longest_wait() -> None:
    door = gate(max_wait_s=0.01)
    await door.acquire("interactive", 1)

    with pytest.raises(Unavailable) as caught:
        await door.acquire("interactive", 60)
    assert caught.value.code == "queue_timeout"
    assert door.queued == 0


async def test_who_leaves_the_queue_frees_its_place_at_once() -> None:
    door = gate(max_queued=1)
    await door.acquire("interactive", 1)
    leaver = asyncio.create_task(door.acquire("interactive", 60))
    await settle()
    leaver.cancel()
    await settle()

    assert door.queued == 0
    assert door.held == 1


async def test_who_is_granted_a_place_while_leaving_gives_it_to_the_next() -> None:
    door = gate()
    await door.acquire("interactive", 1)
    leaver = asyncio.create_task(door.acquire("interactive", 60))
    stayer = asyncio.create_task(door.acquire("interactive", 60))
    await settle()
    door.release()
    leaver.cancel()
    await stayer

    assert (door.held, door.queued) == (1, 0)
    assert leaver.cancelled()


async def test_the_time_to_come_back_follows_the_measured_drain_rate() -> None:
    clock = Clock()
    door = gate(slots=10, max_queued=0, clock=clock)
    for _ in range(10):
        await door.acquire("interactive", 1)
    for _ in range(5):
        clock.now += 2.0
        door.release()
        await door.acquire("interactive", 1)
    slow = door.retry_after_s()
    for _ in range(5):
        clock.now += 0.1
        door.release()
        await door.acquire("interactive", 1)

    assert slow == pytest.approx(2.0, rel=0.01)
    assert door.retry_after_s() < slow


async def test_who_would_wait_in_vain_is_refused_at_once() -> None:
    clock = Clock()
    door = gate(slots=3, max_queued=100, clock=clock)
    for _ in range(3):
        await door.acquire("interactive", 1)
    for _ in range(2):
        clock.now += 5.0
        door.release()
        await door.acquire("interactive", 1)
    waiting = asyncio.create_task(door.acquire("interactive", 60))
    await settle()

    with pytest.raises(TooMany):
        await door.acquire("interactive", 5.0)
    waiting.cancel()


async def test_a_lull_says_nothing_of_how_fast_a_full_house_empties() -> None:
    clock = Clock()
    door = gate(slots=2, max_queued=100, clock=clock)
    for _ in range(4):
        await door.acquire("interactive", 1)
        await door.acquire("interactive", 1)
        clock.now += 0.5
        door.release()
        door.release()
        clock.now += 3600.0
    for _ in range(2):
        await door.acquire("interactive", 1)
    waiting = [asyncio.create_task(door.acquire("interactive", 60)) for _ in range(10)]
    await settle()

    # Two places every half second: the eleventh to wait gets one long before ten seconds are over.
    last = asyncio.create_task(door.acquire("interactive", 10.0))
    await settle()
    assert not last.done()
    assert door.retry_after_s() < 10
    for task in (*waiting, last):
        task.cancel()


async def test_traffic_in_waves_does_not_hide_how_fast_places_come_back() -> None:
    clock = Clock()
    door = gate(slots=16, max_queued=0, clock=clock)
    for _ in range(4):
        for _ in range(16):
            await door.acquire("interactive", 1)
        clock.now += 5.0
        for _ in range(16):
            door.release()
        clock.now += 5.0

    # Sixteen in five seconds; the half of a wave that leaves an emptier house is not counted.
    assert (door.drain_per_s() or 0) > 1.6


async def test_of_several_gates_the_first_with_a_place_lets_in_or_the_first_to_get_one() -> None:
    doors = [gate(), gate(), gate()]
    entered = [await acquire_any(doors, "interactive", 1) for _ in doors]
    waiting = [asyncio.create_task(acquire_any(doors, "interactive", 60)) for _ in range(2)]
    await settle()
    queued = [door.queued for door in doors]
    doors[2].release()
    doors[1].release()

    assert entered == doors
    assert queued == [2, 2, 2]
    assert [await task for task in waiting] == [doors[2], doors[1]]
    assert [(door.held, door.queued) for door in doors] == [(1, 0)] * 3


async def test_who_leaves_while_granted_by_one_of_several_gates_gives_that_place_back() -> None:
    doors = [gate(), gate()]
    for door in doors:
        await door.acquire("interactive", 1)
    leaver = asyncio.create_task(acquire_any(doors, "batch", 60))
    await settle()
    doors[1].release()
    leaver.cancel()
    await settle()

    assert [(door.held, door.queued) for door in doors] == [(1, 0), (0, 0)]


async def test_several_gates_refuse_only_when_every_queue_is_full() -> None:
    doors = [gate(max_queued=0), gate(max_queued=1)]
    for door in doors:
        await door.acquire("interactive", 1)
    waiting = asyncio.create_task(acquire_any(doors, "interactive", 60))
    await settle()

    with pytest.raises(TooMany):
        await acquire_any(doors, "interactive", 60)
    doors[1].release()
    assert await waiting is doors[1]


async def test_several_gates_drain_together() -> None:
    clock = Clock()
    doors = [gate(slots=2, max_queued=9, clock=clock) for _ in range(2)]
    for door in doors:
        await door.acquire("interactive", 1)
        await door.acquire("interactive", 1)
    for _ in range(2):
        clock.now += 5.0  # a place every five seconds at each
        for door in doors:
            door.release()
            await door.acquire("interactive", 1)
    waiting = [asyncio.create_task(acquire_any(doors, "interactive", 60)) for _ in range(2)]
    await settle()

    # The third to wait: 15 s at one gate, 7.5 s at two.
    with pytest.raises(TooMany):
        await acquire_any(doors[:1], "interactive", 10.0)
    third = asyncio.create_task(acquire_any(doors, "interactive", 10.0))
    await settle()
    assert not third.done()
    for task in (*waiting, third):
        task.cancel()


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(st.tuples(st.sampled_from(["enter", "batch", "leave", "cancel"]), st.integers(0, 9))))
def test_places_and_queue_never_pass_their_bounds(steps: list[tuple[str, int]]) -> None:
    async def play() -> None:
        door = gate(slots=3, max_queued=4)
        tasks: list[asyncio.Task[None]] = []
        for step, number in steps:
            if step in {"enter", "batch"}:
                kind: Priority = "interactive" if step == "enter" else "batch"
                tasks.append(asyncio.create_task(door.acquire(kind, 60)))
            elif step == "leave" and door.held:
                door.release()
            elif step == "cancel" and tasks:
                tasks[number % len(tasks)].cancel()
            await settle()
            assert 0 <= door.held <= 3
            assert door.queued <= 4
            assert door.held == 3 or door.queued == 0
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert door.queued == 0

    asyncio.run(play())
