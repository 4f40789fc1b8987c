"""What it costs a request to go to the replica of its conversation, and whether it arrives there.

    python -m experiments.replica_choice [--turns 400] [--rounds 3]

Three applications of two replicas each, in turn: Serve's default choice, Serve's consistent hashing with
`options(session_id=…)` for each request, and `deployments.upstream.replica_choice`, which reads a header of
the call. One call at a time from this process; a replica returns its name and does nothing else.
"""

import argparse
import asyncio
import os
import time
from collections.abc import AsyncGenerator
from statistics import mean, median
from typing import Any

import ray
from ray import serve

from deployments.contracts.messages import REPLICA_KEY
from deployments.upstream.serve_client import PICKLED

WAYS = {
    "default": None,
    "options(session_id=…)": "ray.serve.experimental.consistent_hash_router.ConsistentHashRouter",
    "replica_choice": "deployments.upstream.replica_choice.ReplicaChoice",
}
REPLICAS, CONVERSATIONS, WARM_UP = 2, 20, 50


class Echo:
    """A replica that returns its name."""

    def __init__(self) -> None:
        self._name = serve.get_replica_context().replica_id.unique_id

    async def http(self, method: str, path: str, headers: Any, body: bytes) -> AsyncGenerator[str, None]:
        """Respond as an expert does, without an engine."""
        yield self._name


async def _call(way: str, handle: Any, number: int) -> tuple[float, float, str]:
    """Seconds of the call, of its `options`, and the replica that it reached."""
    key = f"conversation {number % CONVERSATIONS}"
    began = time.perf_counter()
    headers: tuple[tuple[bytes, bytes], ...] = ()
    if way == "replica_choice":
        headers = ((REPLICA_KEY, key.encode()),)
    elif way != "default":
        handle = handle.options(session_id=key)
    configured = time.perf_counter()
    replica = [part async for part in handle.remote("POST", "/v1/chat/completions", headers, b"{}" * 200)]
    return time.perf_counter() - began, configured - began, str(replica[0])


async def _measure(turns: int, rounds: int) -> None:
    handles = {
        way: serve.get_deployment_handle("Echo", f"way-{number}").options(
            method_name="http", stream=True, **PICKLED
        )
        for number, way in enumerate(WAYS)
    }
    found: dict[str, list[list[tuple[float, float, str]]]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way, handle in handles.items():
            calls = [await _call(way, handle, number) for number in range(WARM_UP + turns)]
            found[way].append(calls[WARM_UP:])
    base = [median(call[0] for call in calls) for calls in found["default"]]
    print("| choice | call p50, ms | more than default, ms (range) | options, µs | later turns that stay |")
    print("|---|---|---|---|---|")
    for way, each in found.items():
        middle = [median(call[0] for call in calls) for calls in each]
        more = sorted(1000 * (one - other) for one, other in zip(middle, base, strict=True))
        options_us = 1e6 * median(call[1] for calls in each for call in calls)
        stay = mean(
            one[2] == later[2]
            for calls in each
            for one, later in zip(calls, calls[CONVERSATIONS:], strict=False)
        )
        print(
            f"| {way} | {1000 * median(middle):.2f} | "
            f"{median(more):+.2f} ({more[0]:+.2f} to {more[-1]:+.2f}) | {options_us:.0f} | {stay:.0%} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=400, help="calls in each round")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    ray.init(include_dashboard=False, num_cpus=2, log_to_driver=False)
    try:
        for number, path in enumerate(WAYS.values()):
            chosen = {} if path is None else {"request_router_config": {"request_router_class": path}}
            actor = {"num_cpus": 0.1}
            deployment = serve.deployment(
                Echo, name="Echo", num_replicas=REPLICAS, ray_actor_options=actor, **chosen
            )
            serve.run(deployment.bind(), name=f"way-{number}", route_prefix=None)
        print(f"{os.cpu_count()} processors, load average {os.getloadavg()[0]:.1f}\n")
        asyncio.run(_measure(options.turns, options.rounds))
    finally:
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    main()
