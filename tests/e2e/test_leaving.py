"""Clients that disconnect from the real application: by vLLM's own metrics, its engines become idle."""

import asyncio
import random
import sys
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.deployments.e2e.conftest import EXPERTS, Watch
from tests.e2e.conftest import Application

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

CLIENTS = 50
LONG = {"max_tokens": 400, "ignore_eos": True, "temperature": 1.0}
"""Seconds of work for an engine: no client here waits for the whole answer."""


@pytest.fixture
def watch(application: Application) -> Iterator[Watch]:
    watching = Watch()
    yield watching
    watching.close()


async def leave_at_random(url: str, seed: int) -> int:
    """Let clients disconnect after a random time; how many did before their answer was complete."""
    drawn = random.Random(seed)

    async def one(client: httpx.AsyncClient, number: int) -> bool:
        body = {
            "model": ("auto", *EXPERTS)[number % 5],
            "messages": [{"role": "user", "content": f"What is {number} + {number}?"}],
            "stream": number % 2 == 0,
            **LONG,
        }
        try:
            async with asyncio.timeout(drawn.uniform(0.0, 1.5)):
                async with client.stream("POST", "/v1/chat/completions", json=body) as response:
                    async for _ in response.aiter_bytes():
                        pass
        except TimeoutError:
            return True
        return False

    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as client:
        return sum(await asyncio.gather(*(one(client, number) for number in range(CLIENTS))))


def wave(application: Application, watch: Watch, seed: int) -> float:
    """Seconds from the last disconnect until no engine runs or queues a request."""
    left = asyncio.run(leave_at_random(application.url, seed))
    began = time.monotonic()
    assert watch.until_idle(60.0)
    took = time.monotonic() - began
    sys.stdout.write(f"{left} of {CLIENTS} left early, engines idle {took:.2f} s after the last\n")
    assert left > CLIENTS / 2
    return took


def test_engines_come_to_rest_when_clients_leave(application: Application, watch: Watch) -> None:
    """The time that it takes is tested in `make test-slow`."""
    assert wave(application, watch, seed=1) >= 0


@pytest.mark.slow
def test_engines_come_to_rest_each_time_that_five_hundred_clients_left(
    application: Application, watch: Watch
) -> None:
    took = [wave(application, watch, seed) for seed in range(10)]

    assert max(took) <= 2.0
