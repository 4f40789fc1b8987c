"""The router's step on a device, compared with the device's limits, by batch size and length.

    python -m experiments.encoder_roofline --device cuda --peak-tflops 989 --peak-gb-s 4800   (an H200)
    python -m experiments.encoder_roofline --device cpu

For each batch: milliseconds, queries per second, and the time of the encoder's arithmetic and of moving its
weights and states at the device's peaks (a dense multiply-add counts two). Then p50 and p99
of the whole step, encode, score and decide, with the policy of serve_config.yaml. To share a GPU with an
expert, run it while one serves.
"""

import argparse
import json
import os
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from experiments.routing_step import WORDS
from router.core import QueryBatch, RouteRequest
from router.encoders import Encoder, load_encoder
from router.encoders.source import find
from router.policy import Policy

POLICY = Path("cluster/local/policy")
BATCHES = (1, 8, 32, 64, 128)
LENGTHS = (16, 32, 128, 256)
BYTES = 2
"""Of a number in half precision."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU runtime")
    parser.add_argument("--peak-tflops", type=float, help="dense, in the precision that is used")
    parser.add_argument("--peak-gb-s", type=float, help="of the memory")
    parser.add_argument("--repeats", type=int, default=30)
    options = parser.parse_args()
    policy = Policy.load(POLICY)
    encoder = load_encoder(policy.encoder, device=options.device, threads=options.threads)
    shape = json.loads((find(policy.encoder).folder / "config.json").read_text(encoding="utf-8"))
    rng = random.Random(0)
    print(f"{options.device}, {os.cpu_count()} processors, load average {os.getloadavg()[0]:.1f} before\n")
    print("| queries | tokens | ms p50 | queries/s | GFLOP | TFLOP/s | roofline, ms | of it |")
    print("|---|---|---|---|---|---|---|---|")
    for length in LENGTHS:
        for size in BATCHES:
            print(_row(encoder, shape, rng, size, length, options), flush=True)
    print("\n| queries | whole step p50, ms | p99, ms |\n|---|---|---|")
    for size in BATCHES:
        step = _times(lambda texts: _decide(encoder, policy, texts), rng, size, 30, 5 * options.repeats)
        print(f"| {size} | {np.median(step):.2f} | {np.percentile(step, 99):.2f} |", flush=True)


def _row(
    encoder: Encoder,
    shape: dict[str, int],
    rng: random.Random,
    size: int,
    length: int,
    options: argparse.Namespace,
) -> str:
    times = _times(encoder.encode, rng, size, length, options.repeats)
    took_ms = float(np.median(times))
    flops, moved = work(shape, size, length)
    limits = [
        1000 * amount / (peak * unit)
        for amount, peak, unit in ((flops, options.peak_tflops, 1e12), (moved, options.peak_gb_s, 1e9))
        if peak
    ]
    roof = f"{max(limits):.3f} | {max(limits) / took_ms:.0%}" if limits else "– | –"
    rates = f"{1000 * size / took_ms:.0f} | {flops / 1e9:.1f} | {flops / took_ms / 1e9:.2f}"
    return f"| {size} | {length} | {took_ms:.2f} | {rates} | {roof} |"


def work(shape: dict[str, int], size: int, length: int) -> tuple[float, float]:
    """Return the operations and the minimum of bytes moved, for `size` texts of `length` tokens."""
    layers, width, inner = shape["num_hidden_layers"], shape["hidden_size"], shape["intermediate_size"]
    tokens = size * length
    weights = layers * (4 * width * width + 2 * width * inner)
    attention = layers * 2 * length * width
    flops = 2.0 * tokens * (weights + attention)
    states = layers * tokens * (8 * width + 2 * inner)
    return flops, BYTES * float(weights + states)


def _times(
    work_on: Callable[[tuple[str, ...]], object], rng: random.Random, size: int, length: int, repeats: int
) -> Sequence[float]:
    """Return the milliseconds of each pass after three that warm up."""
    times = []
    for number in range(repeats + 3):
        texts = tuple(_text(rng, length) for _ in range(size))
        began = time.perf_counter()
        work_on(texts)
        if number >= 3:
            times.append(1000 * (time.perf_counter() - began))
    return times


def _text(rng: random.Random, tokens: int) -> str:
    """Return a text of `tokens` tokens: each of these words is one, and an encoder adds two."""
    return " ".join(rng.choices(WORDS, k=tokens - 2))


def _decide(encoder: Encoder, policy: Policy, texts: Sequence[str]) -> None:
    policy.decide(QueryBatch(tuple(texts), encoder.encode(texts)), [RouteRequest(text) for text in texts])


if __name__ == "__main__":
    main()
