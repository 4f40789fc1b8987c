"""The router in process, with its queue and cache, as in a replica.

    OMP_NUM_THREADS=1 python -m experiments.router_alone [--rounds 5] [--seconds 4] [--rate 2500]

In each round, in turn: the bare encoder's best batched throughput, the router at saturation, with random
arrivals at half of that and at a fixed rate, and one repeated query. Queries of about 30 tokens, none twice
except in the last part. The policy and the encoder are those of serve_config.yaml.
"""

import argparse
import asyncio
import os
import random
import time
from pathlib import Path
from statistics import median

import numpy as np

from deployments.config import RouterArgs
from deployments.routing.deployment import Router
from experiments.routing_step import a_query
from router.core import RouteRequest
from router.encoders import Encoder, load_encoder
from router.policy import Policy

POLICY = Path("cluster/local/policy")
BATCHES = (16, 32, 64)
CALLERS = 128
"""Concurrent callers at saturation: two full batches."""
REPEATS = 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each load in each round")
    parser.add_argument(
        "--rate", type=float, default=2500.0, help="queries per second, whatever saturation is"
    )
    parser.add_argument("--policy", type=Path, default=POLICY)
    parser.add_argument("--threads", type=int, default=1, help="of the encoder")
    asyncio.run(_run(parser.parse_args()))


async def _run(options: argparse.Namespace) -> None:
    encoder = load_encoder(Policy.load(options.policy).encoder, device="cpu", threads=options.threads)
    router = Router(RouterArgs(device="cpu", threads=options.threads, batch_wait_ms=0))
    await router.reconfigure({"policy": str(options.policy.resolve())})
    rng = random.Random(0)
    await _saturated(router, rng, 1.0)  # warm
    print(f"{os.cpu_count()} processors, load average {os.getloadavg()[0]:.1f} before\n")
    print(
        "| round | encoder, 1/s | router, 1/s | of the encoder | p50 at half, ms | p99 "
        f"| p50 at {options.rate:g}/s | p99 | repeated p50 | p99 |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    rows = []
    for number in range(options.rounds):
        bare = _encoding(encoder, rng, options.seconds)
        rate = await _saturated(router, rng, options.seconds)
        half = await _at_rate(router, rng, rate / 2, options.seconds)
        fixed = await _at_rate(router, rng, options.rate, options.seconds)
        again = await _repeated(router)
        times = (value for part in (half, fixed, again) for value in np.percentile(part, (50, 99)))
        row = (bare, rate, rate / bare, *times)
        rows.append(row)
        print(f"| {number + 1} | {_cells(row)} |", flush=True)
    print(f"| median | {_cells(tuple(median(column) for column in zip(*rows, strict=True)))} |")


def _encoding(encoder: Encoder, rng: random.Random, seconds: float) -> float:
    """Return texts per second at the encoder's best batch size."""
    best = 0.0
    for size in BATCHES:
        done, began = 0, time.perf_counter()
        while (took := time.perf_counter() - began) < seconds / len(BATCHES):
            encoder.encode([a_query(rng) for _ in range(size)])
            done += size
        best = max(best, done / took)
    return best


async def _saturated(router: Router, rng: random.Random, seconds: float) -> float:
    """Return decisions per second when callers never pause."""
    end, done = time.perf_counter() + seconds, 0

    async def caller() -> None:
        nonlocal done
        while time.perf_counter() < end:
            await _decide(router, a_query(rng))
            done += 1

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return done / (time.perf_counter() - began)


async def _at_rate(router: Router, rng: random.Random, rate: float, seconds: float) -> list[float]:
    """Return the milliseconds of each decision since its due time, with Poisson arrivals."""
    times: list[float] = []

    async def one(due: float) -> None:
        await _decide(router, a_query(rng))
        times.append(1000 * (time.perf_counter() - due))

    due = began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        while (due := due + rng.expovariate(rate)) < began + seconds:
            # What became due during a turn of the loop arrives together, as from sockets. A timer of the loop
            # is late by up to a millisecond, which would count as the router's.
            while time.perf_counter() < due:  # noqa: ASYNC110 - an event would come by the same timer
                await asyncio.sleep(0)
            group.create_task(one(due))
    return times


async def _repeated(router: Router) -> list[float]:
    times, query = [], "Please explain how the river came to be"
    await _decide(router, query)
    for _ in range(REPEATS):
        began = time.perf_counter()
        await _decide(router, query)
        times.append(1000 * (time.perf_counter() - began))
    return times


async def _decide(router: Router, query: str) -> None:
    (response,) = await router.decide([RouteRequest(query, prompt_tokens=30, max_tokens=32)])
    if response.decision is None:
        raise RuntimeError(f"no decision: {response.no_policy}")


def _cells(row: tuple[float, ...]) -> str:
    bare, rate, share, *times = row
    return " | ".join((f"{bare:.0f}", f"{rate:.0f}", f"{share:.2f}", *(f"{value:.2f}" for value in times)))


if __name__ == "__main__":
    main()
