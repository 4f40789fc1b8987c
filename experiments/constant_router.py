"""The ingress with a router that returns a constant: the cost of routing for the whole graph, as a ratio.

    python -m experiments.constant_router [--rounds 5] [--seconds 4]

Starts two graphs with simulated experts, ours and one whose `Router` deployment always returns the same
decision without reading the query, and saturates `/v1/route` on each in turn: with queries of about thirty
tokens, none twice, and with one repeated query.
"""

import argparse
import os
import sys
from collections.abc import Sequence
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
from load_tests.processes import responds, running
from load_tests.workloads import Shape, requests
from router.core import Decision, ExpertView, RouteRequest

PORT = 18200
CLIENTS = 32
NAMES = ("arithmetic", "words", "atlas", "chat")
DECISION = Decision(
    NAMES, {name: ExpertView(0.9, 1e-6, None, eligible=True) for name in NAMES}, "0123456789ab"
)


class Router:
    """A router that always ranks the experts in the order of `NAMES`."""

    def __init__(self, args: RouterArgs) -> None:
        del args

    async def reconfigure(self, user_config: Any) -> None:
        """Do nothing: there is no configuration."""

    async def decide(self, requests: Sequence[RouteRequest], traces: Any = ()) -> list[RouterResponse]:
        """Return the constant for each."""
        return [RouterResponse(DECISION) for _ in requests]

    async def exposition(self) -> tuple[str, bytes]:
        """Return no metrics."""
        return "constant", b""

    def describe(self) -> RouterState:
        """Return the state of the constant policy."""
        return RouterState(PolicyView(DECISION.policy_id, NAMES, NAMES), None)


def build_app(args: AppArgs) -> Any:
    """Build the application of `deployments.app:build_app` with the constant router."""
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
    """Start both graphs in one cluster, with common experts; only one at a time gets requests."""
    graph = simulated_graph("http://127.0.0.1:9")
    main_app = graph["applications"][0]
    constant = yaml.safe_load(yaml.safe_dump(main_app))
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
        running(command, log=out / "served.log", ready=responds(f"{url}/constant/ready"), within_s=240)
    )
    return url


def _compare(url: str, workload: str, options: argparse.Namespace) -> None:
    rows = []
    for number in range(options.rounds):
        figures = {}
        for prefix in ("", "/constant") if number % 2 else ("/constant", ""):
            load = uvloop.run(
                closed_loop(
                    Target.of(url + prefix),
                    requests(workload, Shape(path="/v1/route", stream=False), seed=number),
                    concurrency=CLIENTS,
                    count=1_000_000,
                    seconds=options.seconds,
                )
            )
            if failed := [outcome.error for outcome in load.outcomes if not outcome.ok]:
                raise RuntimeError(f"{len(failed)} requests failed: {failed[0]}")
            times = sorted(1000 * outcome.e2e_s for outcome in load.outcomes)
            figures[prefix] = (
                len(times) / load.seconds,
                times[len(times) // 2],
                times[int(0.99 * len(times))],
            )
        rows.append(
            (
                figures["/constant"][0],
                figures[""][0],
                figures[""][0] / figures["/constant"][0],
                *figures[""][1:],
            )
        )
    cells = [median(column) for column in zip(*rows, strict=True)]
    shares = sorted(row[2] for row in rows)
    ratio = f"{cells[2]:.2f} ({shares[0]:.2f} to {shares[-1]:.2f})"
    print(f"| {workload} | {cells[0]:.0f} | {cells[1]:.0f} | {ratio} | {cells[3]:.1f} | {cells[4]:.1f} |")


if __name__ == "__main__":
    main()
