"""The cost of an open board for requests: the same load with and without one, in paired repeats.

    python -m tests.deployments.dashboard.watching [--url http://127.0.0.1:8000] [--pairs 10] [--seconds 3]

A board is the requests of its script: `/page/data/board`, first with the history, then every two seconds.
The browser that draws it runs on another machine in practice, so none runs here.
Without `--url` the real ingress serves with fakes behind it, in this process: the strictest setting, since
one event loop does everything.
Prints each pair and the 95 % interval of the relative difference; it contains 0 when there is no
significant difference.
"""

import argparse
import asyncio
import contextlib
import logging
import statistics
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx

from tests.deployments.dashboard.graph import serving

BOARD_EVERY_S = 2.0
CONNECTIONS = 8
T_95 = {5: 2.776, 10: 2.262, 15: 2.145, 20: 2.093}
"""Student's t for so many pairs."""
MESSAGE = {"role": "user", "content": "What is 12 + 30?"}
BODY = {"model": "auto", "messages": [MESSAGE], "max_tokens": 8, "stream": True}


@dataclass(frozen=True, slots=True)
class Round:
    """Result of one load."""

    rps: float
    p50_ms: float


async def one_round(http: httpx.AsyncClient, seconds: float) -> Round:
    """A closed loop of `CONNECTIONS` clients."""
    waits: list[float] = []
    end = time.perf_counter() + seconds

    async def client() -> None:
        while (began := time.perf_counter()) < end:
            response = await http.post("/v1/chat/completions", json=BODY)
            response.raise_for_status()
            waits.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(CONNECTIONS)))
    return Round(len(waits) / (time.perf_counter() - began), 1000 * statistics.median(waits))


@contextlib.asynccontextmanager
async def board(http: httpx.AsyncClient) -> AsyncIterator[None]:
    """An open board."""

    async def poll() -> None:
        (await http.get("/page/data/board", params={"history": 1})).raise_for_status()
        while True:
            await asyncio.sleep(BOARD_EVERY_S)
            (await http.get("/page/data/board")).raise_for_status()

    polling = asyncio.create_task(poll())
    try:
        yield
    finally:
        polling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await polling


async def measure(url: str, pairs: int, seconds: float) -> list[tuple[Round, Round]]:
    """(closed, open) for each pair; which comes first alternates."""
    results = []
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        await one_round(http, seconds)  # warm
        for number in range(pairs):
            rounds = {}
            for opened in (False, True) if number % 2 == 0 else (True, False):
                async with board(http) if opened else contextlib.nullcontext():
                    rounds[opened] = await one_round(http, seconds)
            results.append((rounds[False], rounds[True]))
    return results


def interval(differences: list[float]) -> tuple[float, float, float]:
    """Mean and 95 % interval of paired differences."""
    mean = statistics.fmean(differences)
    half = T_95[len(differences)] * statistics.stdev(differences) / len(differences) ** 0.5
    return mean, mean - half, mean + half


def main() -> int:
    """Print the pairs and the verdict; returns 1 when an open board makes a significant difference."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.deployments.dashboard.watching", description=__doc__
    )
    parser.add_argument("--url")
    parser.add_argument("--pairs", type=int, default=10, choices=sorted(T_95))
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    with contextlib.ExitStack() as stack:
        url = options.url or stack.enter_context(serving()).url
        pairs = asyncio.run(measure(url, options.pairs, options.seconds))
    for closed, opened in pairs:
        sys.stdout.write(
            f"closed {closed.rps:8.1f} req/s {closed.p50_ms:7.2f} ms   "
            f"open {opened.rps:8.1f} req/s {opened.p50_ms:7.2f} ms\n"
        )
    same = True
    for name in ("rps", "p50_ms"):
        mean, low, high = interval([getattr(b, name) / getattr(a, name) - 1 for a, b in pairs])
        same = same and low <= 0 <= high
        sys.stdout.write(f"{name}: {mean:+.2%} (95 %: {low:+.2%} to {high:+.2%})\n")
    sys.stdout.write("no significant difference\n" if same else "a significant difference\n")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
