"""Encoding time of a single query: back to back, and between the work of other programs.

    OMP_NUM_THREADS=1 python -m experiments.lone_query [--rounds 3] [--threads 1]

Between two queries of the second kind it writes 48 MB and pauses for 15 ms, like engines and idle time on a
shared machine, which leaves the caches cold. Medians of each round, in milliseconds.
"""

import argparse
import random
import time
from collections.abc import Callable
from statistics import median

import numpy as np

from experiments.routing_step import a_query
from router.encoders import Encoder, load_encoder

QUERIES = 60
WRITTEN = 6_000_000
"""Count of numbers of eight bytes."""
IDLE_S = 0.015


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of the encoder")
    options = parser.parse_args()
    encoder, rng = load_encoder("default", device="cpu", threads=options.threads), random.Random(0)
    others = np.zeros(WRITTEN)

    def work() -> None:
        np.add(others, 1.0, out=others)
        time.sleep(IDLE_S)

    kinds: dict[str, Callable[[], str]] = {
        "a short question": lambda: f"What is {rng.randrange(100)} + {rng.randrange(100)}?",
        "thirty tokens": lambda: a_query(rng),
    }
    print("| query | back to back, ms | between other work, ms |\n|---|---|---|")
    for _ in range(options.rounds):
        for name, draw in kinds.items():
            warm, cold = _ms(encoder, draw, lambda: None), _ms(encoder, draw, work)
            print(f"| {name} | {warm:.2f} | {cold:.2f} |", flush=True)


def _ms(encoder: Encoder, draw: Callable[[], str], before: Callable[[], None]) -> float:
    """Return the median of one pass, after one that warms up."""
    times = []
    for _ in range(QUERIES + 1):
        texts = [draw()]
        before()
        began = time.perf_counter()
        encoder.encode(texts)
        times.append(1000 * (time.perf_counter() - began))
    return median(times[1:])


if __name__ == "__main__":
    main()
