"""Requests that arrive together share a pass; none fails or waits with a batch that is not its own."""

import asyncio
from collections.abc import Sequence

import pytest

from deployments.routing.batching import Batcher
from tests.deployments.fakes import Clock


class Scorer:
    """Doubles numbers while `may_go` is set, and remembers the batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.may_go = asyncio.Event()
        self.may_go.set()

    async def __call__(self, numbers: list[int]) -> Sequence[int]:
        self.batches.append(numbers)
        await self.may_go.wait()
        if 13 in numbers:
            raise ValueError("13")
        return [2 * number for number in numbers]


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_requests_that_arrive_during_a_batch_are_the_next_one() -> None:
    scorer = Scorer()
    scorer.may_go.clear()
    batcher = Batcher(scorer, max_size=8, wait_s=0)
    first = asyncio.create_task(batcher.submit([1]))
    await settled()
    others = [asyncio.create_task(batcher.submit([number])) for number in (2, 3, 4)]
    await settled()
    scorer.may_go.set()

    assert await asyncio.gather(first, *others) == [[2], [4], [6], [8]]
    assert scorer.batches == [[1], [2, 3, 4]]


async def test_a_batch_is_never_longer_than_its_limit() -> None:
    scorer = Scorer()
    batcher = Batcher(scorer, max_size=3, wait_s=0)

    assert await asyncio.gather(*(batcher.submit([number]) for number in range(7))) == [
        [2 * number] for number in range(7)
    ]
    assert [len(batch) for batch in scorer.batches] == [3, 3, 1]


async def test_the_queue_counts_what_is_in_no_batch_yet() -> None:
    scorer = Scorer()
    scorer.may_go.clear()
    batcher = Batcher(scorer, max_size=2, wait_s=0)
    calls = [asyncio.create_task(batcher.submit(numbers)) for numbers in ([1], [2, 3, 4], [5, 6], [7])]
    await settled()
    assert scorer.batches == [[1, 2]]
    assert batcher.waiting == 5

    calls[2].cancel()
    scorer.may_go.set()
    await asyncio.gather(*calls, return_exceptions=True)
    assert batcher.waiting == 0
    assert scorer.batches == [[1, 2], [3, 4], [7]]


async def test_half_of_a_long_queue_goes_first() -> None:
    scorer = Scorer()
    batcher = Batcher(scorer, max_size=64, wait_s=0)
    await asyncio.gather(*(batcher.submit([number]) for number in range(40, 72)))

    assert [len(batch) for batch in scorer.batches] == [16, 8, 8]


async def test_a_batch_waits_for_more_and_a_full_one_does_not() -> None:
    scorer = Scorer()
    batcher = Batcher(scorer, max_size=2, wait_s=3600)
    alone = asyncio.create_task(batcher.submit([1]))
    await settled()

    assert scorer.batches == []
    assert await asyncio.gather(alone, batcher.submit([2])) == [[2], [4]]
    assert scorer.batches == [[1, 2]]


async def test_a_batch_that_stays_short_goes_when_its_wait_is_over() -> None:
    scorer = Scorer()

    assert await Batcher(scorer, max_size=2, wait_s=0.001).submit([5]) == [10]


async def test_a_request_cancelled_before_its_batch_is_not_scored() -> None:
    scorer = Scorer()
    scorer.may_go.clear()
    batcher = Batcher(scorer, max_size=8, wait_s=0)
    first = asyncio.create_task(batcher.submit([1]))
    await settled()
    leaves, stays = asyncio.create_task(batcher.submit([2])), asyncio.create_task(batcher.submit([3]))
    await settled()
    leaves.cancel()
    scorer.may_go.set()

    assert await asyncio.gather(first, stays) == [[2], [6]]
    assert scorer.batches == [[1], [3]]


async def test_a_failed_batch_fails_its_own_callers_and_no_later_ones() -> None:
    scorer = Scorer()
    batcher = Batcher(scorer, max_size=8, wait_s=0)
    results = await asyncio.gather(batcher.submit([13]), batcher.submit([1]), return_exceptions=True)

    assert [type(result) for result in results] == [ValueError, ValueError]
    assert await batcher.submit([4]) == [8]


async def test_a_request_after_a_pause_has_its_result() -> None:
    batcher = Batcher(Scorer(), max_size=8, wait_s=0)

    assert await batcher.submit([1]) == [2]
    await settled()
    assert await batcher.submit([2]) == [4]


@pytest.mark.parametrize("leave", [0, 1])
async def test_a_request_cancelled_within_a_batch_fails_no_other(leave: int) -> None:
    scorer = Scorer()
    scorer.may_go.clear()
    batcher = Batcher(scorer, max_size=8, wait_s=0)
    callers = [asyncio.create_task(batcher.submit([number])) for number in (1, 2)]
    await settled()
    callers[leave].cancel()
    scorer.may_go.set()

    assert await callers[1 - leave] == [2 * (2 - leave)]


async def test_abandoned_requests_do_not_pile_up_behind_a_hung_batch() -> None:
    scorer = Scorer()
    scorer.may_go.clear()
    batcher = Batcher(scorer, max_size=8, wait_s=0)
    first = asyncio.create_task(batcher.submit([0]))
    await settled()
    for number in range(1, 100):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(batcher.submit([number]), 0.0001)

    assert batcher.waiting <= 1
    scorer.may_go.set()
    assert await asyncio.gather(first, batcher.submit([100])) == [[0], [200]]


async def test_the_age_of_a_batch_is_counted_from_its_start_to_its_end() -> None:
    scorer, clock = Scorer(), Clock()
    scorer.may_go.clear()
    batcher = Batcher(scorer, max_size=8, wait_s=0, clock=clock)
    ages = [batcher.batch_age_s]
    for number in (1, 13):
        scorer.may_go.clear()
        task = asyncio.create_task(batcher.submit([number]))
        await settled()
        clock.now += 5
        ages.append(batcher.batch_age_s)
        scorer.may_go.set()
        await asyncio.wait([task])
        ages.append(batcher.batch_age_s)

    assert ages == [0, 5, 0, 5, 0]
    assert isinstance(task.exception(), ValueError)


async def test_a_call_of_many_returns_as_a_whole_and_in_order() -> None:
    scorer = Scorer()
    batcher = Batcher(scorer, max_size=64, wait_s=0)
    many, few = await asyncio.gather(batcher.submit(range(20, 52)), batcher.submit([1, 2]))

    assert many == [2 * number for number in range(20, 52)]
    assert few == [2, 4]
    assert [len(batch) for batch in scorer.batches] == [32, 2]


async def test_a_call_longer_than_a_batch_is_divided() -> None:
    scorer = Scorer()
    batcher = Batcher(scorer, max_size=3, wait_s=0)

    assert await batcher.submit(range(7)) == [2 * number for number in range(7)]
    assert [len(batch) for batch in scorer.batches] == [3, 3, 1]


async def test_a_call_of_nothing_has_no_results() -> None:
    assert await Batcher(Scorer(), max_size=3, wait_s=0).submit([]) == []
