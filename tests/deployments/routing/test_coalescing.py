"""What gathers while a call is under way leaves as one call; nothing else delays it."""

import asyncio
import contextvars
from collections.abc import Sequence

import pytest

from deployments.routing.coalescing import MOST_TOGETHER, Coalescer

FOREVER_S = 3600.0
NAME: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="none")


class Replica:
    """Doubles numbers once `may_go` is set, and remembers the calls."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.contexts: list[str] = []
        self.may_go = asyncio.Event()
        self.called_twice = asyncio.Event()

    async def __call__(self, numbers: list[int], timeout_s: float) -> Sequence[int]:
        self.calls.append(numbers)
        self.contexts.append(NAME.get())
        if len(self.calls) == 2:
            self.called_twice.set()
        await self.may_go.wait()
        if 13 in numbers:
            raise ConnectionError("13")
        return [2 * number for number in numbers]


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def submitted(coalescer: Coalescer[int, int], *numbers: int) -> list["asyncio.Task[int]"]:
    return [asyncio.create_task(coalescer.submit(number, FOREVER_S)) for number in numbers]


async def test_a_lone_request_leaves_at_once() -> None:
    replica = Replica()
    (task,) = submitted(Coalescer(replica, hold_s=FOREVER_S), 1)
    await settled()

    assert replica.calls == [[1]]
    replica.may_go.set()
    assert await task == 2


async def test_what_arrives_during_a_call_leaves_together_after_it() -> None:
    replica = Replica()
    coalescer = Coalescer(replica, hold_s=FOREVER_S)
    first = submitted(coalescer, 1)
    await settled()
    others = submitted(coalescer, 2, 3, 4)
    await settled()

    assert replica.calls == [[1]]
    replica.may_go.set()
    assert await asyncio.gather(*first, *others) == [2, 4, 6, 8]
    assert replica.calls == [[1], [2, 3, 4]]


async def test_a_call_that_takes_long_keeps_the_next_one_back_no_more() -> None:
    replica = Replica()
    coalescer = Coalescer(replica, hold_s=0.001)
    tasks = submitted(coalescer, 1)
    await settled()
    tasks += submitted(coalescer, 2)
    await replica.called_twice.wait()

    assert replica.calls == [[1], [2]]
    replica.may_go.set()
    assert await asyncio.gather(*tasks) == [2, 4]
    assert await asyncio.gather(*submitted(coalescer, 5)) == [10]


async def test_a_request_whose_caller_left_is_not_sent() -> None:
    replica = Replica()
    coalescer = Coalescer(replica, hold_s=FOREVER_S)
    first = submitted(coalescer, 1)
    await settled()
    leaves, stays = submitted(coalescer, 2, 3)
    await settled()
    leaves.cancel()
    replica.may_go.set()

    assert await asyncio.gather(*first, stays) == [2, 6]
    assert replica.calls == [[1], [3]]


async def test_a_failed_call_fails_its_own_callers_and_no_later_ones() -> None:
    replica = Replica()
    replica.may_go.set()
    coalescer = Coalescer(replica)
    results = await asyncio.gather(*submitted(coalescer, 13, 1), return_exceptions=True)

    assert [type(result) for result in results] == [ConnectionError, ConnectionError]
    assert await asyncio.gather(*submitted(coalescer, 4)) == [8]


async def test_each_request_has_its_own_deadline() -> None:
    replica = Replica()
    coalescer = Coalescer(replica, hold_s=FOREVER_S)
    patient = submitted(coalescer, 1)
    with pytest.raises(TimeoutError):
        await coalescer.submit(2, 0.001)
    replica.may_go.set()

    assert await asyncio.gather(*patient) == [2]


async def test_a_call_has_a_bounded_number_of_requests() -> None:
    replica = Replica()
    replica.may_go.set()
    await asyncio.gather(*submitted(Coalescer(replica), *range(20, MOST_TOGETHER + 30)))

    assert [len(call) for call in replica.calls] == [MOST_TOGETHER, 10]


async def test_a_call_belongs_to_no_request_that_made_it() -> None:
    replica = Replica()
    replica.may_go.set()
    NAME.set("a request")
    coalescer = Coalescer(replica)

    await asyncio.gather(*submitted(coalescer, 1))
    await asyncio.gather(*submitted(coalescer, 2))
    assert replica.contexts == ["none", "none"]


async def test_a_call_with_too_few_results_fails() -> None:
    async def short(numbers: list[int], timeout_s: float) -> Sequence[int]:
        return []

    with pytest.raises(ConnectionError):
        await Coalescer(short).submit(1, FOREVER_S)
