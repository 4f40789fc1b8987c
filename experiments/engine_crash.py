"""An engine with variants that crashes: when each of them is unavailable, and whether others respond.

    python -m experiments.engine_crash [--out var/engine-crash]

Starts the graph with two pocket experts, one of them with two adapters. While each of the four answers
request after request, the engine with the adapters is killed. Prints when the circuit breaker of each expert
opened, by the ingress' metrics, and the statuses of its requests; an error of transport counts as one.
"""

from __future__ import annotations

import argparse
import copy
import json
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

from cluster.local.run import ROOT, serving
from cluster.pocket.expert_folder import EXPERTS
from experiments.variants import MARKED, QUERIES, await_experts, engine_processes, graph, make, write

PORT = 8245
BASE, OTHER = "words", "arithmetic"
VARIANTS = (BASE, *MARKED[:2])
BEFORE_S, AFTER_S = 5.0, 20.0
BREAKER = re.compile(r'to_router_breaker_state\{[^}]*expert="([^"]+)"[^}]*\} (\S+)')


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; 1 if the variants did not become unavailable at once, or the other expert failed."""
    parser = argparse.ArgumentParser(prog="python -m experiments.engine_crash", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("var/engine-crash"))
    out: Path = parser.parse_args(arguments).out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    adapters = make(out / "adapters", EXPERTS / BASE, MARKED[:2])
    data = with_another(graph(adapters, BASE))
    with serving(write(data, out), port=PORT, log=out / "serve.log") as (url, process):
        await_experts(url, process)
        watch = Watch(url)
        threads = [threading.Thread(target=watch.breakers, daemon=True)]
        threads += [
            threading.Thread(target=watch.requests, args=(name,), daemon=True) for name in (*VARIANTS, OTHER)
        ]
        for thread in threads:
            thread.start()
        time.sleep(BEFORE_S)
        for engine in engine_processes(BASE):
            engine.kill()
        watch.killed_at = time.monotonic()
        time.sleep(AFTER_S)
        watch.ended = True
        for thread in threads:
            thread.join(30)
    figures = watch.figures()
    print(json.dumps(figures, indent=2))
    opened: dict[str, list[float]] = figures["opened after, s"]
    at_once = set(opened) == set(VARIANTS) and len({tuple(times) for times in opened.values()}) == 1
    return int(not at_once or len(opened[BASE]) != 1 or set(figures["after"][OTHER]) != {"200"})


def with_another(data: dict[str, Any]) -> dict[str, Any]:
    """A graph with one more engine, without adapters."""
    shipped = yaml.safe_load((ROOT / "serve_config.yaml").read_text(encoding="utf-8"))
    app = copy.deepcopy(next(each for each in shipped["applications"] if each["args"].get("name") == OTHER))
    experts = data["applications"][0]["deployments"][0]["user_config"]["experts"]
    experts[OTHER] = {"app": app["name"]}
    return {**data, "applications": [*data["applications"], app]}


@dataclass(slots=True)
class Watch:
    """Requests to experts by name, and the states of their circuit breakers meanwhile."""

    url: str
    ended: bool = False
    killed_at: float | None = None
    opened_at: dict[str, list[float]] = field(default_factory=dict)
    """Expert → the times at which its breaker was seen open after another state."""
    before: dict[str, Counter[str]] = field(default_factory=dict)
    after: dict[str, Counter[str]] = field(default_factory=dict)
    """Expert → count by status, or error of transport, of requests that began after the engine was killed."""

    def requests(self, name: str) -> None:
        """Send one request after the other."""
        with httpx.Client(base_url=self.url, timeout=60) as client:
            number = 0
            while not self.ended:
                query = f"{QUERIES[number % len(QUERIES)]} {number}"
                messages = [{"role": "user", "content": query}]
                counts = self.before if self.killed_at is None else self.after
                body = {"model": name, "messages": messages, "max_tokens": 2, "temperature": 0}
                try:
                    status = str(client.post("/v1/chat/completions", json=body).status_code)
                except httpx.TransportError as error:
                    status = type(error).__name__
                counts.setdefault(name, Counter())[status] += 1
                number += 1
                time.sleep(0.05)

    def breakers(self) -> None:
        """Read the metrics again and again."""
        last: dict[str, float] = {}
        with httpx.Client(base_url=self.url, timeout=30) as client:
            while not self.ended:
                try:
                    text = client.get("/metrics").text
                except httpx.TransportError:
                    continue
                now = time.monotonic()
                for name, state in BREAKER.findall(text):
                    if float(state) == 1.0 and last.get(name) == 0.0:
                        self.opened_at.setdefault(name, []).append(now)
                    last[name] = float(state)
                time.sleep(0.05)

    def figures(self) -> dict[str, Any]:
        """What was seen."""
        killed_at = self.killed_at or 0.0
        return {
            "opened after, s": {
                name: [round(time_s - killed_at, 2) for time_s in times]
                for name, times in self.opened_at.items()
            },
            "before": {name: dict(counts) for name, counts in self.before.items()},
            "after": {name: dict(counts) for name, counts in self.after.items()},
        }


if __name__ == "__main__":
    sys.exit(main())
