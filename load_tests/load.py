"""Send requests and collect their outcomes: in a closed loop, or in an open loop at planned times.

Bounded in count, time and concurrency. Knows the client; nothing of reports.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from load_tests.client import Outcome, Pool, Target
from load_tests.workloads import Request

MOST_IN_FLIGHT = 1024
"""Concurrent requests of an open loop; further ones count as `client:saturated`."""


@dataclass(slots=True)
class Load:
    """Outcomes of one load, and the client's own processor time."""

    outcomes: list[Outcome] = field(default_factory=list)
    seconds: float = 0.0
    client_cpu_s: float = 0.0
    started_at: float = 0.0
    """By the clock of the outcomes."""


async def closed_loop(
    target: Target,
    requests: Iterator[Request],
    *,
    concurrency: int,
    count: int,
    seconds: float,
    timeout_s: float = 60.0,
) -> Load:
    """Run `concurrency` clients; each sends its next request as soon as its last one has ended."""
    load, pool = Load(), Pool(target)
    end = time.perf_counter() + seconds
    left = count

    async def client() -> None:
        nonlocal left
        while left > 0 and time.perf_counter() < end:
            left -= 1
            await _send(pool, next(requests), load, timeout_s=timeout_s)

    async with _Timed(load):
        await asyncio.gather(*(client() for _ in range(concurrency)))
    pool.close()
    return load


async def open_loop(
    target: Target, requests: Iterator[Request], *, arrivals: Sequence[float], timeout_s: float = 60.0
) -> Load:
    """Send each request at its time, whether or not earlier ones have ended."""
    load, pool = Load(), Pool(target)
    in_flight: set[asyncio.Task[None]] = set()
    async with _Timed(load):
        for at in arrivals:
            planned = load.started_at + at
            if (wait_s := planned - time.perf_counter()) > 0:
                await asyncio.sleep(wait_s)
            request = next(requests)
            late_s = max(0.0, time.perf_counter() - planned)
            if len(in_flight) >= MOST_IN_FLIGHT:
                load.outcomes.append(
                    Outcome(time.perf_counter(), late_s=late_s, kind=request.kind, error="client:saturated")
                )
                continue
            task = asyncio.create_task(_send(pool, request, load, timeout_s=timeout_s, late_s=late_s))
            in_flight.add(task)
            task.add_done_callback(in_flight.discard)
        if in_flight:
            await asyncio.wait(in_flight)
    pool.close()
    return load


async def _send(pool: Pool, request: Request, load: Load, *, timeout_s: float, late_s: float = 0.0) -> None:
    outcome = Outcome(time.perf_counter(), late_s=late_s, kind=request.kind)
    await pool.send(pool.target.encode(request.path, request.body), outcome, timeout_s=timeout_s)
    load.outcomes.append(outcome)


class _Timed:
    """Measures wall and processor time of a load."""

    def __init__(self, load: Load) -> None:
        self._load = load

    async def __aenter__(self) -> None:
        self._load.started_at = time.perf_counter()
        self._cpu = _cpu_s()
        self._wall = time.monotonic()

    async def __aexit__(self, *_: object) -> None:
        self._load.seconds = time.monotonic() - self._wall
        self._load.client_cpu_s = _cpu_s() - self._cpu


def _cpu_s() -> float:
    times = os.times()
    return times.user + times.system
