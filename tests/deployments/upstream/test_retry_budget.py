"""A share of the requests in flight is retried at once; the others wait for their turn."""

import asyncio

from deployments.contracts.deadlines import Deadline
from deployments.upstream.retry_budget import MIN_RETRIES, SHARE, RetryBudget
from tests.deployments.fakes import Clock
from tests.deployments.harness import settle


async def begin(budget: RetryBudget, clock: Clock, count: int) -> list["asyncio.Task[bool]"]:
    deadline = Deadline(60, clock)
    tasks = [asyncio.create_task(budget.acquire(deadline, "interactive")) for _ in range(count)]
    await settle()
    return tasks


async def test_few_retries_never_wait() -> None:
    clock = Clock()
    tasks = await begin(RetryBudget(lambda: 0, clock), clock, MIN_RETRIES)

    assert all(task.done() and task.result() for task in tasks)


async def test_of_many_requests_a_share_is_retried_at_once() -> None:
    clock = Clock()
    budget = RetryBudget(lambda: 100, clock)
    tasks = await begin(budget, clock, 200)
    running = sum(task.done() for task in tasks)

    assert SHARE * 100 <= running <= SHARE * 300
    for _ in tasks:
        budget.release()
        await settle()
    assert all(task.result() for task in tasks)
    assert budget.running == 0


async def test_a_retry_whose_turn_does_not_come_in_time_does_not_begin() -> None:
    clock = Clock()
    budget = RetryBudget(lambda: 0, clock)
    await begin(budget, clock, MIN_RETRIES)

    assert not await budget.acquire(Deadline(0.01), "interactive")
    assert budget.running == MIN_RETRIES
