"""Cost of a routing decision in process: encode, score and decide, for 4 and for 64 experts.

    python -m experiments.routing_step [--repeats 60]

Queries of about 30 tokens, none twice. The two policies and the bare encoder take turns, so that other work
of the machine affects all of them; ratios are paired. Real policies, trained on made-up outcomes; no graph,
no batching queue.
"""

import argparse
import os
import random
import time
from collections.abc import Callable
from statistics import median

import numpy as np

from router.core import QueryBatch, RouteRequest
from router.data.dataset import Dataset
from router.encoders import DEFAULT, Encoder, load_encoder
from router.experts import CandidatePool, ExpertProfile, Price
from router.policy import Policy
from router.training.train import train

POOLS = (4, 64)
TRAINED_ON = 1500
TOPICS = 12
WORDS = (
    "river",
    "ledger",
    "engine",
    "orbit",
    "tax",
    "proof",
    "garden",
    "signal",
    "poem",
    "enzyme",
    "court",
    "sail",
)
Times = dict[str, list[float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=60)
    parser.add_argument("--method", default="auto")
    options = parser.parse_args()
    encoder = load_encoder("default", device="cpu", threads=1)
    rng = random.Random(0)
    policies = {count: a_policy(encoder, count, options.method) for count in POOLS}
    print(f"{os.cpu_count()} processors; encoder with 1 thread; load average {os.getloadavg()[0]:.1f}\n")
    print("| batch | encode only, ms | 4 experts, ms | 64 experts, ms | 64 over 4 | encode share of 4 |")
    print("|---|---|---|---|---|---|")
    for size in (1, 64):
        repeats = options.repeats if size > 1 else 5 * options.repeats
        times = _measure(encoder, policies, size, repeats, rng)
        few, many, bare = times["4"], times["64"], times["encode"]
        cells = [_cell(bare), _cell(few), _cell(many)]
        growth = [b / a for a, b in zip(few, many, strict=True)]
        share = [a / b for a, b in zip(bare, few, strict=True)]
        print(f"| {size} | {' | '.join(cells)} | {_ratio(growth)} | {_ratio(share)} |")
    print("\nTimes are p50 (p99); ratios are medians of pairs (first to last quartile).")


def _measure(
    encoder: Encoder, policies: dict[int, Policy], size: int, repeats: int, rng: random.Random
) -> Times:
    times: Times = {"encode": [], **{str(count): [] for count in policies}}
    for number in range(repeats + 3):
        work: dict[str, Callable[[], object]] = {"encode": _encoding(encoder, _queries(size, rng))}
        for count, policy in policies.items():
            work[str(count)] = _routing(encoder, policy, _queries(size, rng))
        for name in rng.sample(sorted(work), len(work)):
            began = time.perf_counter()
            work[name]()
            if number >= 3:  # the first ones warm the caches
                times[name].append(1000 * (time.perf_counter() - began))
    return times


def _encoding(encoder: Encoder, texts: tuple[str, ...]) -> Callable[[], object]:
    return lambda: encoder.encode(texts)


def _routing(encoder: Encoder, policy: Policy, texts: tuple[str, ...]) -> Callable[[], object]:
    requests = [RouteRequest(text) for text in texts]
    return lambda: policy.decide(QueryBatch(texts, encoder.encode(texts)), requests)


def _queries(count: int, rng: random.Random) -> tuple[str, ...]:
    return tuple(a_query(rng) for _ in range(count))


def a_query(rng: random.Random) -> str:
    """Return a query of about thirty tokens."""
    return f"Please explain how the {' '.join(rng.choices(WORDS, k=16))} came to be ({rng.randrange(10**6)})"


def a_policy(encoder: Encoder, experts: int, method: str) -> Policy:
    """Return a policy trained on made-up outcomes."""
    rng, words = np.random.default_rng(experts), random.Random(experts)
    texts = _queries(TRAINED_ON, words)
    topic = rng.integers(0, TOPICS, TRAINED_ON)
    chance = rng.uniform(0.2, 0.9, (TOPICS, experts))[topic]
    pool = CandidatePool(
        [ExpertProfile(f"expert{i}", Price(0.1 * (1 + i), 0.2 * (1 + i))) for i in range(experts)]
    )
    measured = {
        "quality": (rng.random(chance.shape) < chance).astype(float),
        "prompt_tokens": np.full(chance.shape, 30.0),
        "completion_tokens": rng.integers(20, 400, chance.shape).astype(float),
    }
    names = tuple(f"q{row}" for row in range(TRAINED_ON))
    dataset = Dataset(pool, names, texts, measured, tuple(f"task{number}" for number in topic), None)
    return train(dataset, encoder.encode(texts), DEFAULT, method=method)


def _cell(times: list[float]) -> str:
    return f"{median(times):.2f} ({np.percentile(times, 99):.2f})"


def _ratio(ratios: list[float]) -> str:
    low, high = np.percentile(ratios, (25, 75))
    return f"{median(ratios):.2f} ({low:.2f} to {high:.2f})"


if __name__ == "__main__":
    main()
