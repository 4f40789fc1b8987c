"""The bytes of all bodies in one process."""

import asyncio
import random

import pytest

from deployments.contracts.errors import Unavailable
from deployments.ingress.body_budget import FREE_BYTES, BodyBudget, HeldBytes

BODY = 4 * FREE_BYTES


def bodies(budget: BodyBudget, number: int) -> list[HeldBytes]:
    return [HeldBytes(budget, f"req-{index}") for index in range(number)]


async def test_a_small_body_never_waits() -> None:
    budget = BodyBudget(1, BODY, 0.01)
    for held in bodies(budget, 3):
        await held.grow(FREE_BYTES)

    assert budget.held == 3 * FREE_BYTES


async def test_one_body_may_exceed_the_limit_and_the_next_waits_for_its_end() -> None:
    budget = BodyBudget(BODY, BODY, 5.0)
    first, second, third = bodies(budget, 3)
    await first.grow(BODY)
    await second.grow(BODY)
    waits = asyncio.create_task(third.grow(BODY))
    await asyncio.sleep(0)

    assert (budget.held, waits.done()) == (2 * BODY, False)
    second.release()
    await waits
    assert budget.held == 2 * BODY


async def test_a_body_that_waited_too_long_is_rejected_and_holds_nothing_more() -> None:
    budget = BodyBudget(BODY, BODY, 0.01)
    first, second, third = bodies(budget, 3)
    await first.grow(BODY)
    await second.grow(BODY)
    with pytest.raises(Unavailable):
        await third.grow(BODY)

    assert (third.size, budget.held) == (0, 2 * BODY)


async def test_bodies_that_came_in_part_all_end_within_the_bound() -> None:
    budget = BodyBudget(3 * BODY, BODY, 5.0)
    drawn = random.Random(0)
    most = 0

    async def upload(held: HeldBytes) -> None:
        nonlocal most
        while held.size < BODY:
            await held.grow(min(BODY, held.size + drawn.randrange(1, FREE_BYTES)))
            most = max(most, budget.held)
            await asyncio.sleep(0)
        held.release()

    async with asyncio.timeout(5):
        await asyncio.gather(*(upload(held) for held in bodies(budget, 50)))

    assert budget.held == 0
    assert most <= 4 * BODY + 50 * FREE_BYTES


async def test_a_body_that_leaves_while_it_waits_makes_way() -> None:
    budget = BodyBudget(BODY, BODY, 5.0)
    first, second, third, fourth = bodies(budget, 4)
    await first.grow(BODY)
    await second.grow(BODY)
    leaves, stays = asyncio.create_task(third.grow(BODY)), asyncio.create_task(fourth.grow(BODY))
    await asyncio.sleep(0)
    leaves.cancel()
    second.release()

    await stays
    assert budget.held == 2 * BODY


async def test_released_bytes_are_counted_once() -> None:
    budget = BodyBudget(BODY, BODY, 5.0)
    (held,) = bodies(budget, 1)
    budget.register(held)
    await budget.hold("req-0").grow(BODY)
    held.release()
    held.release()

    assert budget.held == 0
    assert budget.hold("req-0") is not held
