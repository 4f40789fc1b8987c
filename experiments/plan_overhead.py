"""What plans add to the times of an answer: paired times on the simulated graph.

    python -m experiments.plan_overhead [--queries 300] [--out FOLDER]

Starts ingress, router and four simulated experts that respond at once, with the policy of
`experiments.simulated_plans`. Of every query whose answer a plan accepts, the same request is timed in turn:
to the member by its name, through `auto` without plans, and through `auto` with the plan. One at a time.
A second table has the time to the first token where the member takes its time: a held answer against
`hold: {tokens: 16}`.
"""

import argparse
import json
import random
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from http.client import HTTPConnection
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Any

import yaml

from cluster.local.readiness import wait_until_ready
from cluster.local.run import ROOT, serving
from experiments.simulated_plans import behaviour, make_policy, plans_of

PORT = 8139
EXPERTS = ("first", "second", "third", "last")
WAYS = ("named", "auto", "plan")
TOKENS, HOLD_TOKENS = 32, 16
FAST: Mapping[str, float] = MappingProxyType({})
SLOW = {"ttft_ms": 50.0, "tokens_per_s": 100.0}
"""An engine's pace, for the second table."""
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

    def send(
        self,
        query: str,
        plan: str,
        way: str,
        *,
        stream: bool,
        pace: Mapping[str, float] = FAST,
    ) -> tuple[float, float, str | None]:
        """Seconds to the first token and to the end, and whether the plan accepted.

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
            "simulate": {name: {**settings, **pace} for name, settings in behaviour(EXPERTS, TOKENS).items()},
            "stream": stream,
        }
        began = time.perf_counter()
        self._connection.request(
            "POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"}
        )
        response = self._connection.getresponse()
        first = response.readline()
        first_s = time.perf_counter() - began
        response.read()
        if response.status != 200:
            raise RuntimeError(f"{way} returned {response.status}: {first[:300]!r}")
        return first_s, time.perf_counter() - began, response.headers.get("x-router-accepted")


def measure(client: Client, plan: str, *, stream: bool, queries: int) -> dict[str, float]:
    """Median milliseconds of each way, and of the paired differences."""
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    for query, drawn in accepted(client, plan, stream=stream, queries=queries):
        for way in drawn.sample(WAYS, len(WAYS)):
            times[way].append(1000 * client.send(query, plan, way, stream=stream)[1])
    pairs = list(zip(*(times[way] for way in WAYS), strict=True))
    return {
        **{way: median(times[way]) for way in WAYS},
        "over_auto": median(plan - auto for _, auto, plan in pairs),
        "over_named": median(plan - named for named, _, plan in pairs),
    }


def first_tokens(client: Client, *, queries: int) -> dict[str, float]:
    """Median milliseconds to a stream's first token: of the member alone, and through two plans."""
    times: dict[str, list[float]] = {"named": [], "check": [], "hold": []}
    for query, _ in accepted(client, "hold", stream=True, queries=queries):
        for plan, way in (("named", "named"), ("check", "plan"), ("hold", "plan")):
            first_s, _, verdict = client.send(query, plan, way, stream=True, pace=SLOW)
            if way == "named" or verdict == "true":
                times[plan].append(1000 * first_s)
    return {name: median(values) for name, values in times.items()}


def accepted(client: Client, plan: str, *, stream: bool, queries: int) -> Iterator[tuple[str, random.Random]]:
    """Queries whose answer a plan accepts; the router knows them from here on."""
    drawn = random.Random(f"{plan}{stream}")
    found = 0
    while found < queries:
        query = f"What is {drawn.randint(1, 99_999)} + {drawn.randint(1, 99_999)}?"
        if client.send(query, plan, "plan", stream=stream)[2] == "true":
            found += 1
            yield query, drawn


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print a table; 1 if the graph does not start."""
    parser = argparse.ArgumentParser(prog="python -m experiments.plan_overhead", description=__doc__)
    parser.add_argument("--queries", type=int, default=300, help="accepted queries of each case")
    parser.add_argument("--out", type=Path, default=ROOT / "var" / "plan-overhead")
    options = parser.parse_args(arguments)
    shutil.rmtree(options.out / "policy", ignore_errors=True)
    options.out.mkdir(parents=True, exist_ok=True)
    make_policy(EXPERTS, options.out / "policy", tokens=TOKENS, hold_tokens=HOLD_TOKENS)
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
        begun = first_tokens(client, queries=max(10, options.queries // 10))
    print("| plan | named, ms | `auto`, ms | plan, ms | plan over `auto`, ms | plan over named, ms |")
    print("|---|---|---|---|---|---|")
    for case, found in figures.items():
        print(f"| {case} | " + " | ".join(f"{value:.2f}" for value in found.values()) + " |")
    print(
        "\n| the member alone, TTFT in ms | its complete answer held | `hold: {tokens: 16}` |\n|---|---|---|"
    )
    print("| " + " | ".join(f"{value:.0f}" for value in begun.values()) + " |")
    text = json.dumps({"cases": figures, "first_token_ms": begun}, indent=2)
    (options.out / "figures.json").write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
