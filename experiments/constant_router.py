"""The door with a router that answers a constant: what routing costs the whole graph, as a ratio.

    python -m experiments.constant_router [--rounds 5] [--seconds 4]

Starts two graphs with simulated experts, ours and one whose `Router` deployment decides the same
for everyone without reading the query, and puts `/v1/route` at saturation on each in turn: queries
of about thirty tokens, none twice, and one query again and again.
"""

import argparse
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import uvloop
import yaml

from deployments.config import AppArgs, RouterArgs
from deployments.contracts.messages import PolicyView, RouterResponse, RouterState
from deployments.placement import actor_options
from load_tests.client import Target
from load_tests.load import closed_loop
from load_tests.peers import simulated_graph
from load_tests.processes import answers, running
from load_tests.workloads import Shape, asks
from router.core import Decision, ExpertView, RouteRequest

PORT = 18200
CLIENTS = 32
NAMES = ("arithmetic", "words", "atlas", "generalist")
DECISION = Decision(
    NAMES, {name: ExpertView(0.9, 1e-6, None, eligible=True) for name in NAMES}, "0123456789ab"
)


class Router:
    """Prefers the experts in the order of their names."""

    def __init__(self, args: RouterArgs) -> None:
        del args

    async def reconfigure(self, user_config: Any) -> None:
        """Nothing is configured."""

    async def decide(self, request: RouteRequest, trace: Any = None) -> RouterResponse:
        """The constant."""
        return RouterResponse(DECISION)

    async def exposition(self) -> tuple[str, bytes]:
        """No metrics."""
        return "constant", b""

    def describe(self) -> RouterState:
        """What it serves."""
        return RouterState(PolicyView(DECISION.policy_id, NAMES, NAMES), None)


def build_app(args: AppArgs) -> Any:
    """`deployments.app:build_app` with the constant in the router's place."""
    from ray import serve

    from deployments.ingress.deployment import Ingress

    router = serve.deployment(Router, name="Router", ray_actor_options=actor_options(None, num_cpus=0)).bind(
        args.router
    )
    return serve.deployment(
        serve.ingress()(Ingress), name="Ingress", ray_actor_options=actor_options(None, num_cpus=0)
    ).bind(args.ingress, router)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--out", type=Path, default=Path("var/constant"))
    options = parser.parse_args()
    with ExitStack() as stack:
        url = _start(stack, options.out)
        print(f"{os.cpu_count()} processors, load average {os.getloadavg()[0]:.1f} before\n")
        print("| queries | constant, 1/s | ours, 1/s | ours over constant | p50, ms | p99, ms |")
        print("|---|---|---|---|---|---|")
        for workload in ("thirty", "repeated"):
            _compare(url, workload, options)


def _start(stack: ExitStack, out: Path) -> str:
    """Both doors in one cluster: they share Ray, Serve and the simulated experts, and only one is asked."""
    graph = simulated_graph("http://127.0.0.1:9")
    door = graph["applications"][0]
    constant = yaml.safe_load(yaml.safe_dump(door))
    constant |= {
        "name": "constant",
        "route_prefix": "/constant",
        "import_path": "experiments.constant_router:build_app",
    }
    graph["applications"].append(constant)
    out.mkdir(parents=True, exist_ok=True)
    config = out / "graph.yaml"
    config.write_text(yaml.safe_dump(graph, sort_keys=False), encoding="utf-8")
    url = f"http://127.0.0.1:{PORT}"
    command = (sys.executable, "-m", "cluster.local.run", "--config", str(config), "--port", str(PORT))
    stack.enter_context(
        running(command, log=out / "served.log", ready=answers(f"{url}/constant/ready"), within_s=240)
    )
    return url


def _compare(url: str, workload: str, options: argparse.Namespace) -> None:
    rows = []
    for number in range(options.rounds):
        found = {}
        for prefix in ("", "/constant") if number % 2 else ("/constant", ""):
            load = uvloop.run(
                closed_loop(
                    Target.of(url + prefix),
                    asks(workload, Shape(path="/v1/route", stream=False), seed=number),
                    concurrency=CLIENTS,
                    count=1_000_000,
                    seconds=options.seconds,
                )
            )
            if failed := [outcome.error for outcome in load.outcomes if not outcome.ok]:
                raise RuntimeError(f"{len(failed)} requests failed: {failed[0]}")
            times = sorted(1000 * outcome.e2e_s for outcome in load.outcomes)
            found[prefix] = (len(times) / load.seconds, times[len(times) // 2], times[int(0.99 * len(times))])
        rows.append(
            (found["/constant"][0], found[""][0], found[""][0] / found["/constant"][0], *found[""][1:])
        )
    cells = [median(column) for column in zip(*rows, strict=True)]
    shares = sorted(row[2] for row in rows)
    told = f"{cells[2]:.2f} ({shares[0]:.2f} to {shares[-1]:.2f})"
    print(f"| {workload} | {cells[0]:.0f} | {cells[1]:.0f} | {told} | {cells[3]:.1f} | {cells[4]:.1f} |")


if __name__ == "__main__":
    main()
