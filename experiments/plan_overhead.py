"""What a plan that accepts at once adds to its member's answer: paired times on the simulated graph.

    python -m experiments.plan_overhead [--queries 300] [--out FOLDER]

Starts ingress, router and four simulated experts that respond at once, with the policy of
`experiments.simulated_plans`. Of every query whose answer a plan accepts, the same request is timed in turn:
to the member by its name, through `auto` without plans, and through `auto` with the plan. One at a time.
"""

import argparse
import json
import random
import shutil
import sys
import time
from collections.abc import Sequence
from http.client import HTTPConnection
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from cluster.local.readiness import wait_until_ready
from cluster.local.run import ROOT, serving
from experiments.simulated_plans import behaviour, make_policy, plans_of

PORT = 8139
EXPERTS = ("first", "second", "third", "last")
WAYS = ("named", "auto", "plan")
CASES = (("check", False), ("check", True), ("agree", False), ("hold", True))
"""Plan, and whether the response streams."""
RESPONSE_WITHIN_S = 30.0


def configuration(policy: Path) -> dict[str, Any]:
    """The graph as a Serve config."""
    ingress = {
        "name": "Ingress",
        "num_replicas": 1,
        "max_ongoing_requests": 1000,
        "user_config": {"experts": {name: {"app": f"expert-{name}"} for name in EXPERTS}},
    }
    router = {
        "name": "Router",
        "num_replicas": 1,
        "max_ongoing_requests": 1000,
        "user_config": {"policy": str(policy.resolve())},
    }
    application = {
        "name": "to-router",
        "route_prefix": "/",
        "import_path": "deployments.app:build_app",
        "args": {"ingress": {"router_deadline_ms": 10_000}},
        "deployments": [ingress, router],
    }
    experts = [
        {
            "name": f"expert-{name}",
            "route_prefix": None,
            "import_path": "deployments.app:build_simulated",
            "args": {"name": name, "behaviour": {"ttft_ms": 0, "tokens_per_s": None}},
            "deployments": [{"name": "Expert", "num_replicas": 1, "max_ongoing_requests": 1000}],
        }
        for name in EXPERTS
    ]
    return {
        "http_options": {"host": "127.0.0.1", "port": PORT},
        "logging_config": {"encoding": "JSON", "enable_access_log": False},
        "applications": [application, *experts],
    }


class Client:
    """Sends one request at a time, on one connection."""

    def __init__(self, url: str) -> None:
        self._connection = HTTPConnection(url.removeprefix("http://"), timeout=RESPONSE_WITHIN_S)

    def send(self, query: str, plan: str, way: str, *, stream: bool) -> tuple[float, str | None]:
        """Seconds of a request, and whether its plan accepted.

        Raises:
            RuntimeError: the response was not successful.
        """
        others = [name for name in plans_of(EXPERTS) if name != plan]
        routing: dict[str, Any] = {"cost_weight": 0.0}
        if way == "plan":
            routing["exclude"] = others
        else:
            routing |= {"plans": False, "experts": [EXPERTS[0]]}
        body = {
            "model": EXPERTS[0] if way == "named" else "auto",
            "messages": [{"role": "user", "content": query}],
            "routing": routing,
            "simulate": behaviour(EXPERTS),
            "stream": stream,
        }
        began = time.perf_counter()
        self._connection.request(
            "POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"}
        )
        response = self._connection.getresponse()
        content = response.read()
        seconds = time.perf_counter() - began
        if response.status != 200:
            raise RuntimeError(f"{way} returned {response.status}: {content[:300]!r}")
        return seconds, response.headers.get("x-router-accepted")


def measure(client: Client, plan: str, *, stream: bool, queries: int) -> dict[str, float]:
    """Median milliseconds of each way, and of the paired differences."""
    drawn = random.Random(f"{plan}{stream}")
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    while len(times["plan"]) < queries:
        query = f"What is {drawn.randint(1, 99_999)} + {drawn.randint(1, 99_999)}?"
        if client.send(query, plan, "plan", stream=stream)[1] != "true":
            continue  # only what is accepted; the query is known to the router from here on
        for way in drawn.sample(WAYS, len(WAYS)):
            times[way].append(1000 * client.send(query, plan, way, stream=stream)[0])
    pairs = list(zip(*(times[way] for way in WAYS), strict=True))
    return {
        **{way: median(times[way]) for way in WAYS},
        "over_auto": median(plan - auto for _, auto, plan in pairs),
        "over_named": median(plan - named for named, _, plan in pairs),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print a table; 1 if the graph does not start."""
    parser = argparse.ArgumentParser(prog="python -m experiments.plan_overhead", description=__doc__)
    parser.add_argument("--queries", type=int, default=300, help="accepted queries of each case")
    parser.add_argument("--out", type=Path, default=ROOT / "var" / "plan-overhead")
    options = parser.parse_args(arguments)
    shutil.rmtree(options.out / "policy", ignore_errors=True)
    options.out.mkdir(parents=True, exist_ok=True)
    make_policy(EXPERTS, options.out / "policy")
    config, log = options.out / "graph.yaml", options.out / "serve.log"
    config.write_text(yaml.safe_dump(configuration(options.out / "policy")), encoding="utf-8")
    with serving(config, log=log) as (url, process):
        if not wait_until_ready(url, lambda: process.poll() is None, print):
            print(f"the graph did not start; see {log}", file=sys.stderr)
            return 1
        client = Client(url)
        measure(client, "check", stream=False, queries=20)  # warms every path, not counted
        figures = {
            f"{plan}, {'streaming' if stream else 'non-streaming'}": measure(
                client, plan, stream=stream, queries=options.queries
            )
            for plan, stream in CASES
        }
    print("| plan | named, ms | `auto`, ms | plan, ms | plan over `auto`, ms | plan over named, ms |")
    print("|---|---|---|---|---|---|")
    for case, found in figures.items():
        print(f"| {case} | " + " | ".join(f"{value:.2f}" for value in found.values()) + " |")
    (options.out / "figures.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
