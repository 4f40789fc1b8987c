"""Where a request's processor time goes: `python -m load_tests.processors --model auto --model words`.

Puts a closed loop on a running endpoint of this machine for each model in turn, and tells what every
part of the graph (by its process) and the client used, in milliseconds a request. A process that is
busy while nobody asks shows under `idle`. Knows processes by their titles; imports nothing of ours.
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
from load_tests.workloads import WORKLOADS, Shape, asks

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
"""What stands in a process' title, and the part that it is; the first that fits."""


def main(arguments: list[str] | None = None) -> int:
    """Measure and tell; 1 when a request failed."""
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
    _ask(options, options.model[0], seed=-1)
    for number in range(options.rounds):
        for model in options.model if number % 2 == 0 else options.model[::-1]:
            before = by_part()
            load = _ask(options, model, seed=number)
            used = difference(before, by_part())
            rounds[model].append((load, used))
    print(_page(rounds, {part: 1000 * seconds / options.seconds for part, seconds in idle.items()}))
    return int(any(not outcome.ok for of in rounds.values() for load, _ in of for outcome in load.outcomes))


def spent(seconds: float) -> dict[str, float]:
    """Processor seconds that each part uses while nobody asks."""
    before = by_part()
    time.sleep(seconds)
    return difference(before, by_part())


def by_part() -> dict[int, tuple[str, float]]:
    """Process → its part and the processor seconds it has used."""
    used: dict[int, tuple[str, float]] = {}
    for process, title in titles():
        part = next((name for word, name in PARTS if word in title), None)
        if part is not None:
            with suppress(psutil.NoSuchProcess):  # it ended in the meantime
                used[process.pid] = (part, cpu_s(process.pid))
    return used


def difference(before: dict[int, tuple[str, float]], after: dict[int, tuple[str, float]]) -> dict[str, float]:
    """Seconds by part between two looks; a process that came or went in between is left out."""
    used: dict[str, float] = defaultdict(float)
    for process, (part, seconds) in after.items():
        if process in before:
            used[part] += seconds - before[process][1]
    return dict(used)


def _ask(options: argparse.Namespace, model: str, *, seed: int) -> Load:
    shape = Shape(model=model, max_tokens=options.max_tokens, stream=options.stream, path=options.path)
    load = closed_loop(
        Target.of(options.url),
        asks(options.workload, shape, seed),
        concurrency=options.concurrency,
        count=1_000_000,
        seconds=options.seconds,
    )
    return uvloop.run(load)


def _page(rounds: dict[str, list[tuple[Load, dict[str, float]]]], idle: dict[str, float]) -> str:
    """One row for each part, one column for each model: milliseconds a request, median of the rounds."""
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
    rows.append(("the load's client", *(f"{value:.2f}" for value in clients), ""))
    heads = ("ms of a processor a request", *rounds, "idle, ms a second")
    return "\n".join(table(heads, rows))


if __name__ == "__main__":
    sys.exit(main())
