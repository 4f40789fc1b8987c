"""Two ways from the ingress to an expert's replica: a deployment handle, or the replica's own HTTP port.

    python -m experiments.transports [--rounds 5] [--seconds 3]

Starts one simulated expert and a minimal ingress that relays its bytes, in the fast transport, and runs
the same streams over both ways in turn. `choose_replica` is public; the port of the chosen replica
(`_replica.backend_http_endpoint`) is not, which is one of the results.
"""

import argparse
import os
from collections.abc import AsyncGenerator
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import uvloop
import yaml
from ray import serve
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from cluster.local.run import serving
from deployments.contracts.messages import Head
from deployments.simulated.args import SimulatedArgs
from deployments.simulated.deployment import SimulatedExpert
from deployments.upstream.serve_client import PICKLED
from load_tests.client import Target
from load_tests.load import closed_loop
from load_tests.measures import summarise
from load_tests.processes import responds, wait_for
from load_tests.workloads import Shape, requests

PORT = 18250
PATH = "/v1/chat/completions"
WAYS = ("handle", "port")
UP_WITHIN_S = 120.0
CLIENTS = (1, 16)
TOKENS = 64
BEHAVIOUR = {"ttft_ms": 0, "tokens_per_s": 2000, "slots": 512, "tokens": 4096}
"""Half a millisecond between tokens: many pieces, none of them late."""


class Expert(SimulatedExpert):
    """An expert with the same response through a handle and, as an ASGI app, on its replica's own port."""

    def __serve_build_asgi_app__(self) -> Starlette:
        async def respond(request: Request) -> StreamingResponse:
            parts = self.http("POST", PATH, (), await request.body())
            head = await anext(parts)
            assert isinstance(head, Head)  # noqa: S101 - the first part always is
            return StreamingResponse(_all(head.body, parts), media_type="text/event-stream")

        return Starlette(routes=[Route(PATH, respond, methods=["POST"])])


class Relay:
    """A minimal ingress that relays an expert's bytes, over one way or the other."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._session: Any = None

    def __serve_build_asgi_app__(self) -> Starlette:
        routes = [Route(f"/{way}{PATH}", getattr(self, way), methods=["POST"]) for way in WAYS]
        return Starlette(routes=[*routes, Route("/ready", self.ready)])

    async def ready(self, request: Request) -> StreamingResponse:
        """Return 200 once the handle exists."""
        if self._handle is None:
            handle = serve.get_deployment_handle("Expert", "expert")
            self._handle = handle.options(method_name="http", stream=True, **PICKLED)
        return StreamingResponse(iter([b"ready"]))

    async def handle(self, request: Request) -> StreamingResponse:
        """Relay through the handle."""
        response = self._handle.remote("POST", PATH, (), await request.body())
        head = await anext(response)
        return StreamingResponse(_all(head.body, response), media_type="text/event-stream")

    async def port(self, request: Request) -> StreamingResponse:
        """Relay from the chosen replica's own HTTP server."""
        import aiohttp

        if self._session is None:
            self._session = aiohttp.ClientSession()
        body = await request.body()
        async with self._handle.choose_replica("POST", PATH, (), body, _reserve=False) as chosen:
            _node, port = chosen._replica.backend_http_endpoint
        # The replica listens on the host of `http_options`, which the endpoint does not know.
        response = await self._session.post(f"http://127.0.0.1:{port}{PATH}", data=body)
        return StreamingResponse(response.content.iter_any(), media_type="text/event-stream")


async def _all(first: bytes, parts: Any) -> AsyncGenerator[bytes, None]:
    yield first
    async for part in parts:
        yield part


def build_expert(_args: dict[str, str]) -> Any:
    """Build the expert's application."""
    args = SimulatedArgs.model_validate({"name": "expert", "behaviour": BEHAVIOUR})
    return serve.deployment(serve.ingress()(Expert), name="Expert").bind(args)


def build_relay(_args: dict[str, str]) -> Any:
    """Build the application of the minimal ingress."""
    return serve.deployment(serve.ingress()(Relay), name="Relay").bind()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--out", type=Path, default=Path("var/transports"))
    options = parser.parse_args()
    with ExitStack() as stack:
        url = _start(stack, options.out)
        print(f"{os.cpu_count()} processors, load average {os.getloadavg()[0]:.1f} before\n")
        print("| clients | way | TTFT p50, ms | requests/s | tokens/s | port over handle, tokens/s |")
        print("|---|---|---|---|---|---|")
        for clients in CLIENTS:
            _compare(url, clients, options)


def _start(stack: ExitStack, out: Path) -> str:
    def app(name: str, prefix: str | None, deployment: str) -> dict[str, Any]:
        builder = f"experiments.transports:build_{name}"
        wide = [{"name": deployment, "num_replicas": 1, "max_ongoing_requests": 1000}]
        return {"name": name, "route_prefix": prefix, "import_path": builder, "deployments": wide}

    out.mkdir(parents=True, exist_ok=True)
    graph = {
        "http_options": {"host": "127.0.0.1", "port": PORT},
        "applications": [app("expert", None, "Expert"), app("relay", "/", "Relay")],
    }
    config = out / "graph.yaml"
    config.write_text(yaml.safe_dump(graph), encoding="utf-8")
    url, process = stack.enter_context(serving(config, log=out / "serve.log"))
    wait_for(process, responds(f"{url}/ready"), UP_WITHIN_S, out / "serve.log")
    return url


def _compare(url: str, clients: int, options: argparse.Namespace) -> None:
    figures: dict[str, list[tuple[float, float, float]]] = {way: [] for way in WAYS}
    for number in range(options.rounds):
        for way in WAYS if number % 2 else WAYS[::-1]:
            load = closed_loop(
                Target.of(f"{url}/{way}"),
                requests("thirty", Shape(model="expert", max_tokens=TOKENS, stream=True), seed=number),
                concurrency=clients,
                count=1_000_000,
                seconds=options.seconds,
            )
            summary = summarise(uvloop.run(load))
            if summary["errors"]:
                raise RuntimeError(f"requests failed: {summary['errors']}")
            figures[way].append(
                (summary["ttft_ms"]["p50"], summary["requests_per_s"], summary["output_tokens_per_s"])
            )
    ratios = [port[2] / handle[2] for handle, port in zip(figures["handle"], figures["port"], strict=True)]
    for way in WAYS:
        ttft, rate, tokens = (median(column) for column in zip(*figures[way], strict=True))
        ratio = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if way == "port" else ""
        print(f"| {clients} | {way} | {ttft:.1f} | {rate:.0f} | {tokens:.0f} | {ratio} |", flush=True)


if __name__ == "__main__":
    main()
