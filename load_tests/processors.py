"""Processor time of a request by part: `python -m load_tests.processors --model auto --model words`.

Runs a closed loop against an endpoint of this machine for each model in turn, and prints the time of every
part of the graph (by its process) and of the client, in milliseconds per request. The column `idle` is
the time without requests. Recognises processes by their titles; imports nothing of ours.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from contextlib import suppress
from statistics import median

import psutil
import uvloop

from load_tests.client import Target
from load_tests.load import Load, closed_loop
from load_tests.processes import cpu_s, titles
from load_tests.report import table
from load_tests.workloads import WORKLOADS, Shape, requests

PARTS = (
    (":Ingress", "ingress"),
    (":Router", "router"),
    (":Expert", "expert replica"),
    ("EngineCore", "engine core"),
    ("VLLM::Worker", "engine worker"),
    ("haproxy ", "HAProxy"),
    ("ray::ServeController", "Serve controller"),
    ("HAProxyManager", "Serve's front"),
    ("ProxyActor", "Serve's front"),
    ("raylet", "raylet"),
    ("gcs_server", "GCS"),
    ("ray/dashboard", "dashboard and agents"),
    ("ray::DashboardAgent", "dashboard and agents"),
    ("ray-dashboard", "dashboard and agents"),
    ("runtime_env/agent", "dashboard and agents"),
    ("log_monitor", "dashboard and agents"),
    ("ray::", "other Ray workers"),
)
"""Substring of a process' title and the part that it belongs to; the first match counts."""


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; 1 if a request failed."""
    parser = argparse.ArgumentParser(prog="python -m load_tests.processors", description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--model", action="append", required=True, help="may be given several times")
    parser.add_argument("--path", default="/v1/chat/completions")
    parser.add_argument("--workload", choices=WORKLOADS, default="thirty")
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=16)
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each load in each round")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    idle = spent(options.seconds)
    rounds: dict[str, list[tuple[Load, dict[str, float]]]] = {model: [] for model in options.model}
    _run(options, options.model[0], seed=-1)
    for number in range(options.rounds):
        for model in options.model if number % 2 == 0 else options.model[::-1]:
            before = by_part()
            load = _run(options, model, seed=number)
            used = difference(before, by_part())
            rounds[model].append((load, used))
    print(_page(rounds, {part: 1000 * seconds / options.seconds for part, seconds in idle.items()}))
    return int(any(not outcome.ok for of in rounds.values() for load, _ in of for outcome in load.outcomes))


def spent(seconds: float) -> dict[str, float]:
    """Return the processor seconds of each part without requests."""
    before = by_part()
    time.sleep(seconds)
    return difference(before, by_part())


def by_part() -> dict[int, tuple[str, float]]:
    """Return the part and the processor seconds of each process."""
    used: dict[int, tuple[str, float]] = {}
    for process, title in titles():
        part = next((name for word, name in PARTS if word in title), None)
        if part is not None:
            with suppress(psutil.NoSuchProcess):  # it ended in the meantime
                used[process.pid] = (part, cpu_s(process.pid))
    return used


def difference(before: dict[int, tuple[str, float]], after: dict[int, tuple[str, float]]) -> dict[str, float]:
    """Return the seconds by part between two measurements, for processes in both."""
    used: dict[str, float] = defaultdict(float)
    for process, (part, seconds) in after.items():
        if process in before:
            used[part] += seconds - before[process][1]
    return dict(used)


def _run(options: argparse.Namespace, model: str, *, seed: int) -> Load:
    shape = Shape(model=model, max_tokens=options.max_tokens, stream=options.stream, path=options.path)
    load = closed_loop(
        Target.of(options.url),
        requests(options.workload, shape, seed),
        concurrency=options.concurrency,
        count=1_000_000,
        seconds=options.seconds,
    )
    return uvloop.run(load)


def _page(rounds: dict[str, list[tuple[Load, dict[str, float]]]], idle: dict[str, float]) -> str:
    """Return a row for each part and a column for each model: ms per request, median of the rounds."""
    names = dict.fromkeys(name for _, name in PARTS)
    rows: list[tuple[str, ...]] = [
        (
            "requests/s",
            *(f"{median(len(load.outcomes) / load.seconds for load, _ in of):.1f}" for of in rounds.values()),
            "",
        )
    ]
    for name in names:
        each = [
            median(1000 * used.get(name, 0.0) / max(1, len(load.outcomes)) for load, used in of)
            for of in rounds.values()
        ]
        if any(value >= 0.005 for value in each) or idle.get(name, 0.0) >= 1:
            rows.append((name, *(f"{value:.2f}" for value in each), f"{idle.get(name, 0.0):.0f}"))
    clients = [
        median(1000 * load.client_cpu_s / max(1, len(load.outcomes)) for load, _ in of)
        for of in rounds.values()
    ]
    rows.append(("load client", *(f"{value:.2f}" for value in clients), ""))
    heads = ("processor ms per request", *rounds, "idle, ms per second")
    return "\n".join(table(heads, rows))


if __name__ == "__main__":
    sys.exit(main())
