"""What a price on time adds to a decision: estimates at the ingress, bytes on the way, the choice.

    OMP_NUM_THREADS=1 python -m experiments.priced_decision [--repeats 2000]

A request at a time, its embedding known. Decisions with and without a price take turns, so that other work of
the machine affects both.
"""

import argparse
import os
import pickle  # noqa: TID251 - the trip between processes is made of it; nothing is stored
import random
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import numpy as np

from deployments.upstream.load import Begun, LoadEstimate, Present, loads_now
from experiments.routing_step import a_policy, a_query
from router.core import Preferences, QueryBatch, RouteRequest
from router.encoders import load_encoder

POOLS = (4, 10)
SLOTS = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=2000)
    options = parser.parse_args()
    encoder, rng = load_encoder("default", device="cpu", threads=1), random.Random(0)
    print(f"{os.cpu_count()} processors; load average {os.getloadavg()[0]:.1f}\n")
    print("| experts | estimates, µs | bytes more | to and from bytes, µs | choice, µs | in all, µs |")
    print("|---|---|---|---|---|---|")
    for experts in POOLS:
        policy = a_policy(encoder, experts, "knn")
        text = (a_query(rng),)
        batch = QueryBatch(text, encoder.encode(text))
        present = {name: _present(rng) for name in policy.pool.names}
        plain = RouteRequest(text[0], preferences=Preferences(0.1))
        loads = loads_now(present)
        priced = RouteRequest(text[0], preferences=Preferences(0.1, latency_weight=0.01), load=loads)
        estimates = _added([partial(loads_now, present), dict], options.repeats)
        travel = _added([partial(_there, one) for one in (priced, plain)], options.repeats)
        choice = _added([partial(policy.decide, batch, [one]) for one in (priced, plain)], options.repeats)
        size = len(pickle.dumps(priced)) - len(pickle.dumps(plain))
        in_all = estimates + travel + choice
        print(f"| {experts} | {estimates:.0f} | {size} | {travel:.0f} | {choice:.0f} | {in_all:.0f} |")


def _there(request: RouteRequest) -> object:
    """A request as the router gets it, serialised as between the replicas."""
    return pickle.loads(pickle.dumps(request))  # noqa: S301 - its own bytes


def _added(work: list[Callable[[], object]], repeats: int) -> float:
    """Median microseconds that the first takes longer than the second."""
    added = []
    for repeat in range(repeats):
        seconds = [0.0, 0.0]
        for at in (0, 1) if repeat % 2 else (1, 0):
            began = time.perf_counter()
            work[at]()
            seconds[at] = time.perf_counter() - began
        added.append(seconds[0] - seconds[1])
    return 1e6 * median(added)


def _present(rng: random.Random) -> Present:
    """An expert that is known and busy."""
    estimate = LoadEstimate(time.monotonic)
    for number in range(20):
        begun = Begun(rng.randrange(100, 900), 1 + number % SLOTS, 0.0)
        estimate.first_byte(begun, 0.1 + 0.0002 * begun.uncached_tokens)
        estimate.ended(begun, 3.0 + float(np.sin(number)), 100, 0.2)
    return Present(estimate, SLOTS // 2, SLOTS)


if __name__ == "__main__":
    main()
