"""The order of waiting requests between keys."""

import asyncio

import pytest

from deployments.contracts.errors import TooMany
from deployments.limits.admission import AdmissionQueue, Priority, acquire_any


def queue(slots: int = 1, max_queued: int = 8) -> AdmissionQueue:
    return AdmissionQueue(slots, max_queued=max_queued, max_wait_s=60)


class Order:
    """Requests that wait, and those that were admitted, in order."""

    def __init__(self, queue: AdmissionQueue) -> None:
        self.queue = queue
        self.admitted: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def wait(self, owner: str, name: str, priority: Priority = "interactive") -> None:
        async def one() -> None:
            await acquire_any((self.queue,), priority, 60, owner)
            self.admitted.append(name)

        self.tasks[name] = asyncio.create_task(one())
        await asyncio.sleep(0)

    async def release(self, owner: str) -> None:
        self.queue.release(1, owner)
        await asyncio.sleep(0)
        await asyncio.sleep(0)


async def test_a_key_with_one_request_waits_behind_one_of_another_key_not_all() -> None:
    order = Order(queue())
    await order.queue.acquire("interactive", 1, "many")
    for number in range(4):
        await order.wait("many", f"many-{number}")
    await order.wait("one", "one-0")
    await order.release("many")
    await order.release(order.admitted[0].partition("-")[0])

    assert set(order.admitted) == {"many-0", "one-0"}
    for task in order.tasks.values():
        task.cancel()


async def test_slots_go_to_the_key_that_holds_the_fewest() -> None:
    order = Order(queue(slots=3))
    for _ in range(3):
        await order.queue.acquire("interactive", 1, "many")
    for number in range(3):
        await order.wait("many", f"many-{number}")
    for number in range(3):
        await order.wait("few", f"few-{number}")
    for _ in range(3):
        await order.release("many")

    assert order.admitted == ["few-0", "many-0", "few-1"]
    for task in order.tasks.values():
        task.cancel()


async def test_in_a_full_queue_a_key_with_less_displaces_one_with_more() -> None:
    order = Order(queue(max_queued=2))
    await order.queue.acquire("interactive", 1, "many")
    await order.wait("many", "many-0")
    await order.wait("many", "many-1")
    order.queue.reject_early("few")
    await order.wait("few", "few-0")

    with pytest.raises(TooMany):
        await order.tasks["many-1"]
    with pytest.raises(TooMany):
        order.queue.reject_early("many")
    await order.release("many")
    await order.release("many")
    assert order.admitted == ["many-0", "few-0"]


async def test_requests_of_one_key_keep_their_order() -> None:
    order = Order(queue())
    await order.queue.acquire("interactive", 1, "k")
    for number in range(3):
        await order.wait("k", str(number))
    for _ in range(3):
        await order.release("k")

    assert order.admitted == ["0", "1", "2"]


async def test_a_request_that_leaves_is_not_admitted() -> None:
    order = Order(queue())
    await order.queue.acquire("interactive", 1, "a")
    await order.wait("b", "b-0")
    await order.wait("c", "c-0")
    order.tasks["b-0"].cancel()
    await asyncio.sleep(0)
    await order.release("a")

    assert (order.admitted, order.queue.queued) == (["c-0"], 0)
