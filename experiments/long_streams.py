"""Are long streams cut by ordinary operations? `python -m experiments.long_streams --seconds 180`.

Starts our graph with simulated experts, opens streams that take so long, and meanwhile deploys one change
after the other: more ingress replicas, another seed of an expert, another bound of the ingress, fewer ingress
replicas. Each of the first and the last gives HAProxy another configuration, which is a reload. Prints what
became of the streams; exit code 1 if one was cut.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import yaml

from cluster.local.readiness import wait_until_ready
from cluster.local.run import serving
from experiments.deploys import serve_deploy
from load_tests.peers import simulated_graph
from load_tests.processes import find

CHAT = "/v1/chat/completions"
EXPERTS = ("arithmetic", "words")
TOKENS_PER_S = 2.0
LONGER_S = 60.0
"""A client's patience beyond the length of a stream."""
BACK_END = "http://127.0.0.1:9"
"""Of two experts that get no request here: nothing listens there."""


def main(arguments: list[str] | None = None) -> int:
    """Run the streams and the changes; 1 if a stream was cut or the graph did not start."""
    parser = argparse.ArgumentParser(prog="python -m experiments.long_streams", description=__doc__)
    parser.add_argument("--seconds", type=float, default=180.0, help="length of each stream")
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--port", type=int, default=8140)
    parser.add_argument("--out", type=Path, default=Path("var/long-streams"))
    options = parser.parse_args(arguments)
    graph = simulated_graph(BACK_END)
    graph["http_options"]["port"] = options.port
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="to-router-streams-") as folder:
        file = Path(folder) / "serve_config.yaml"
        file.write_text(yaml.safe_dump(graph, sort_keys=False), encoding="utf-8")
        with serving(file, port=options.port, log=options.out / "serve.log") as (url, process):
            if not wait_until_ready(url, lambda: process.poll() is None, print):
                print(f"the graph is not ready; see {options.out / 'serve.log'}", file=sys.stderr)
                return 1
            report = asyncio.run(run(url, graph, options.streams, options.seconds, Path(folder)))
    text = json.dumps(report, indent=1)
    (options.out / "long_streams.json").write_text(text + "\n", encoding="utf-8")
    print(text)
    return int(report["endings"] != {"complete": options.streams})


async def run(
    url: str, graph: Mapping[str, Any], streams: int, seconds: float, folder: Path
) -> dict[str, Any]:
    """Open the streams, deploy the changes while they run, and return how both ended."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=url, timeout=seconds + LONGER_S, limits=limits) as client:
        opened = asyncio.Semaphore(0)
        bodies = [
            asyncio.create_task(stream(client, number, seconds, opened.release)) for number in range(streams)
        ]
        for _ in bodies:
            await opened.acquire()
        began, happened = time.monotonic(), []
        between_s = seconds / (len(CHANGES) + 1)
        current = copy.deepcopy(dict(graph))
        for name, change in CHANGES.items():
            at_s = time.monotonic() - began
            open_then = sum(not body.done() for body in bodies)
            change(current)
            await asyncio.to_thread(_deploy, current, folder)
            happened.append({"change": name, "at_s": round(at_s, 1), "open_streams": open_then})
            await asyncio.sleep(max(0.0, between_s * len(happened) - (time.monotonic() - began)))
            happened[-1]["ingress_replicas"] = len(find("ray::ServeReplica", "to-router:Ingress"))
        endings = Counter(await asyncio.gather(*bodies))
    return {"streams": streams, "seconds": seconds, "changes": happened, "endings": dict(endings)}


async def stream(client: httpx.AsyncClient, number: int, seconds: float, opened: Callable[[], None]) -> str:
    """Read one stream; `complete`, or how it was cut."""
    tokens = max(1, round(seconds * TOKENS_PER_S))
    body = {
        "model": EXPERTS[number % len(EXPERTS)],
        "messages": [{"role": "user", "content": "hello"}],
        "stream": True,
        "simulate": {"*": {"ttft_ms": 100.0, "tokens_per_s": TOKENS_PER_S, "tokens": tokens, "echo": False}},
    }
    received = b""
    try:
        async with client.stream("POST", CHAT, json=body) as response:
            async for chunk in response.aiter_bytes():
                if not received:
                    opened()
                received += chunk
    except httpx.HTTPError as error:
        return type(error).__name__
    finally:
        if not received:
            opened()
    if not received.endswith(b"data: [DONE]\n\n") or b'"error"' in received:
        return f"HTTP {response.status_code}, not complete"
    return "complete" if received.count(b'"content"') >= tokens else "tokens are missing"


def _deploy(config: Mapping[str, Any], folder: Path) -> None:
    file = folder / "changed.yaml"
    file.write_text(yaml.safe_dump(dict(config), sort_keys=False), encoding="utf-8")
    serve_deploy(file)


def _ingress_replicas(graph: dict[str, Any], count: int) -> None:
    graph["applications"][0]["deployments"][0]["num_replicas"] = count


def _another_seed(graph: dict[str, Any]) -> None:
    expert = next(app for app in graph["applications"] if app["name"] == f"expert-{EXPERTS[1]}")
    expert["args"]["seed"] = 7


def _another_bound(graph: dict[str, Any]) -> None:
    graph["applications"][0].setdefault("args", {}).setdefault("ingress", {})["max_body_mib"] = 8


CHANGES: dict[str, Callable[[dict[str, Any]], None]] = {
    "three ingress replicas": lambda graph: _ingress_replicas(graph, 3),
    "another seed of an expert": _another_seed,
    "another bound of the ingress": _another_bound,
    "one ingress replica": lambda graph: _ingress_replicas(graph, 1),
}


if __name__ == "__main__":
    sys.exit(main())
