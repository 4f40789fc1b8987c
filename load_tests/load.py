"""Send requests and collect what became of them: closed loop, or open loop at given times.

Bounded in count, in time and in requests at once. Knows the client; nothing of reports.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from load_tests.client import Outcome, Pool, Target
from load_tests.workloads import Ask

MOST_IN_FLIGHT = 1024
"""Requests at once in an open loop; what comes then is counted as `client:saturated`."""


@dataclass(slots=True)
class Load:
    """The outcomes of one load, and how the client itself did."""

    outcomes: list[Outcome] = field(default_factory=list)
    seconds: float = 0.0
    client_cpu_s: float = 0.0
    started_at: float = 0.0
    """On the clock of the outcomes."""


async def closed_loop(
    target: Target,
    asks: Iterator[Ask],
    *,
    concurrency: int,
    count: int,
    seconds: float,
    timeout_s: float = 60.0,
) -> Load:
    """`concurrency` clients, each asking again as soon as it was answered."""
    load, pool = Load(), Pool(target)
    end = time.perf_counter() + seconds
    left = count

    async def client() -> None:
        nonlocal left
        while left > 0 and time.perf_counter() < end:
            left -= 1
            await _send(pool, next(asks), load, timeout_s=timeout_s)

    async with _Timed(load):
        await asyncio.gather(*(client() for _ in range(concurrency)))
    pool.close()
    return load


async def open_loop(
    target: Target, asks: Iterator[Ask], *, arrivals: Sequence[float], timeout_s: float = 60.0
) -> Load:
    """Each request at its time, whether or not earlier ones were answered."""
    load, pool = Load(), Pool(target)
    in_flight: set[asyncio.Task[None]] = set()
    async with _Timed(load):
        for at in arrivals:
            planned = load.started_at + at
            if (wait_s := planned - time.perf_counter()) > 0:
                await asyncio.sleep(wait_s)
            ask = next(asks)
            late_s = max(0.0, time.perf_counter() - planned)
            if len(in_flight) >= MOST_IN_FLIGHT:
                load.outcomes.append(
                    Outcome(time.perf_counter(), late_s=late_s, kind=ask.kind, error="client:saturated")
                )
                continue
            task = asyncio.create_task(_send(pool, ask, load, timeout_s=timeout_s, late_s=late_s))
            in_flight.add(task)
            task.add_done_callback(in_flight.discard)
        if in_flight:
            await asyncio.wait(in_flight)
    pool.close()
    return load


async def _send(pool: Pool, ask: Ask, load: Load, *, timeout_s: float, late_s: float = 0.0) -> None:
    outcome = Outcome(time.perf_counter(), late_s=late_s, kind=ask.kind)
    await pool.ask(pool.target.encode(ask.path, ask.body), outcome, timeout_s=timeout_s)
    load.outcomes.append(outcome)


class _Timed:
    """Wall and processor time of a load."""

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
