"""Does a shadow policy change the latency of requests? On one running graph, on and off in paired repeats.

Starts the default graph with simulated experts. In each pair the same number of requests is sent with the
shadow and without it, in random order; `serve deploy` changes `user_config` between them and restarts
nothing. Every request has its own query, which no cache knows. The shadow is the policy in effect itself,
loaded a second time, so it works as much as that.

python -m experiments.shadow_latency --out FOLDER [--pairs 10] [--requests 200] [--at-once 1]
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import yaml

from cluster.local.readiness import wait_until_ready
from cluster.local.run import serving
from experiments.deploys import deploy
from experiments.simulated_experts import default_graph, simulate_experts, user_configs
from router.learning.log import SHADOWS, files_of

PORT = 8152
WARM_UP = 20
LONGEST_S = 30.0
STUDENT = {10: 2.262, 5: 2.776, 3: 4.303, 2: 12.706}
"""Pairs → the 97.5 % quantile of Student's distribution with one degree of freedom less."""


class Graph:
    """The running graph, whose shadow is put on and off.

    Args:
        url: of the ingress.
        graph: its Serve config.
        out: folder of files.
    """

    def __init__(self, url: str, graph: dict[str, Any], out: Path) -> None:
        self._url, self._graph, self._file, self._on = url, graph, out / "changed.yaml", False
        self._client = httpx.Client(base_url=url, timeout=LONGEST_S)
        self._numbers = count(1)

    def turn(self, *, on: bool) -> None:
        """Deploy the graph with the shadow or without it, and wait until the router has it."""
        if on == self._on:
            return
        self._on = on
        router = user_configs(self._graph)["Router"]
        router.pop("shadow", None)
        if on:
            router["shadow"] = router["policy"]
        self._file.write_text(yaml.safe_dump(self._graph, sort_keys=False), encoding="utf-8")
        deploy(self._file, self._url)

    def times(self, requests: int, *, at_once: int) -> list[float]:
        """Milliseconds of each request, in any order."""
        with ThreadPoolExecutor(at_once) as pool:
            return list(pool.map(self._send, range(requests)))

    def _send(self, _: int) -> float:
        number = next(self._numbers)
        messages = [{"role": "user", "content": f"What is {number} plus {7 * number % 1000}?"}]
        began = time.perf_counter()
        response = self._client.post("/v1/chat/completions", json={"model": "auto", "messages": messages})
        took = 1000 * (time.perf_counter() - began)
        response.raise_for_status()
        return took


def ratio(with_it: Sequence[float], without: Sequence[float]) -> tuple[float, float, float]:
    """Geometric mean of the paired ratios, and its 95 % interval."""
    logs = np.log(np.asarray(with_it) / np.asarray(without))
    spread = STUDENT[len(logs)] * float(logs.std(ddof=1)) / len(logs) ** 0.5
    middle = float(logs.mean())
    return tuple(float(np.exp(value)) for value in (middle, middle - spread, middle + spread))  # type: ignore[return-value]  # three


def measure(graph: Graph, *, pairs: int, requests: int, at_once: int) -> dict[bool, list[list[float]]]:
    """Times of each block, with the shadow and without it, pair by pair."""
    rng = random.Random(0)
    found: dict[bool, list[list[float]]] = {True: [], False: []}
    for pair in range(pairs):
        for on in rng.sample((True, False), 2):
            graph.turn(on=on)
            graph.times(WARM_UP, at_once=at_once)
            found[on].append(graph.times(requests, at_once=at_once))
        medians = [f"{np.median(found[on][-1]):.2f}" for on in (True, False)]
        print(f"pair {pair + 1}: {medians[0]} ms with the shadow, {medians[1]} ms without", flush=True)
    return found


def table(found: dict[bool, list[list[float]]]) -> str:
    """The table, a row for each quantile."""
    lines = ["| latency | with the shadow, ms | without, ms | ratio (95 %) |", "|---|---|---|---|"]
    for name, share in (("median", 50), ("95th percentile", 95)):
        on, off = ([float(np.percentile(block, share)) for block in found[key]] for key in (True, False))
        middle, low, high = ratio(on, off)
        cells = f"{np.median(on):.2f} | {np.median(off):.2f} | {middle:.3f} ({low:.3f} to {high:.3f})"
        lines.append(f"| {name} | {cells} |")
    return "\n".join(lines)


def main() -> int:
    """Start the graph, measure, and print the table; 1 if it does not start."""
    parser = argparse.ArgumentParser(prog="python -m experiments.shadow_latency", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="a new folder for log and figures")
    parser.add_argument("--pairs", type=int, default=10, choices=sorted(STUDENT))
    parser.add_argument("--requests", type=int, default=200, help="requests of each half of a pair")
    parser.add_argument("--at-once", type=int, default=1, help="requests in flight")
    options = parser.parse_args()
    options.out.mkdir(parents=True)
    graph, log = default_graph(), options.out / "serve.log"
    simulate_experts(graph)
    graph["http_options"]["port"] = PORT
    shadows = options.out / "decisions"
    user_configs(graph)["Router"]["shadow_folder"] = str(shadows.resolve())
    file = options.out / "serve_config.yaml"
    file.write_text(yaml.safe_dump(graph, sort_keys=False), encoding="utf-8")
    with serving(file, log=log) as (url, process):
        if not wait_until_ready(url, lambda: process.poll() is None, print):
            print(f"the graph is not ready; see {log}", file=sys.stderr)
            return 1
        running = Graph(url, graph, options.out)
        found = measure(running, pairs=options.pairs, requests=options.requests, at_once=options.at_once)
    scored = sum(len(one.read_bytes().splitlines()) for one in files_of(shadows, SHADOWS))
    sent = options.pairs * (options.requests + WARM_UP)
    print(f"\n{scored} of {sent} requests scored by the shadow\n\n{table(found)}")
    blocks = {"with": found[True], "without": found[False]}
    (options.out / "figures.json").write_text(json.dumps(blocks) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
