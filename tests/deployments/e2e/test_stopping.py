"""Replicas that stop regularly finish their streams: at a deploy, at scaling down, before the end.

The last file of this folder: its last test ends the graph.
"""

import asyncio
import copy
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from cluster.local.run import ROOT
from tests.deployments.e2e.conftest import Graph
from tests.deployments.e2e.load import CHAT
from tests.deployments.e2e.test_faults import wait_until_calm

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

STREAMS = 8
LONG = {"ttft_ms": 100.0, "tokens_per_s": 8.0, "tokens": 64, "echo": False}
"""Eight seconds."""


async def streams(graph: Graph, when_all_began: Callable[[], Any]) -> list[bytes]:
    """The bytes of each stream; something happens after all of them have begun."""
    begun = 0
    happened = asyncio.Event()

    async def happen() -> None:
        await happened.wait()
        await asyncio.to_thread(when_all_began)

    async def one(client: httpx.AsyncClient, number: int) -> bytes:
        nonlocal begun
        body = {
            "model": ("words", "atlas")[number % 2],
            "messages": [{"role": "user", "content": "hello"}],
            "stream": True,
            "simulate": {"*": LONG},
        }
        received, counted = b"", False
        async with client.stream("POST", CHAT, json=body) as response:
            async for chunk in response.aiter_bytes():
                received += chunk
                if not counted:
                    counted, begun = True, begun + 1
                    if begun == STREAMS:
                        happened.set()
        return received

    headers = {"authorization": f"Bearer {graph.key}"}
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=graph.url, timeout=60, headers=headers, limits=limits) as client:
        waiting = asyncio.create_task(happen())
        bodies = await asyncio.gather(*(one(client, number) for number in range(STREAMS)))
        await waiting
    return list(bodies)


def assert_complete(bodies: list[bytes]) -> None:
    """Assert that every stream is complete: all tokens, no error, `[DONE]`."""
    assert len(bodies) == STREAMS
    for body in bodies:
        assert body.endswith(b"data: [DONE]\n\n")
        assert b'"error"' not in body
        assert body.count(b'"content"') >= 64


def running(graph: Graph) -> dict[str, Any]:
    """The configuration that is running."""
    data: dict[str, Any] = yaml.safe_load(
        (graph.log.parent / "serve_config.yaml").read_text(encoding="utf-8")
    )
    data["http_options"]["port"] = int(graph.url.rsplit(":", 1)[1])
    return data


def deploy(config: dict[str, Any], folder: Path) -> None:
    """`serve deploy`."""
    file = folder / "changed.yaml"
    file.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    serve = str(Path(sys.executable).parent / "serve")
    env = {**os.environ, "RAY_AUTH_MODE": "token"}
    subprocess.run([serve, "deploy", str(file)], cwd=ROOT, env=env, check=True, capture_output=True)


def until(true: Callable[[], bool], within_s: float) -> bool:
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.5)
    return False


def test_streams_finish_when_an_expert_is_redeployed_and_the_ingress_scaled_down(
    graph: Graph, tmp_path: Path
) -> None:
    wait_until_calm(graph)
    before = {process.pid for process in graph.processes("expert-words:Expert")}
    changed = copy.deepcopy(running(graph))
    changed["applications"][0]["deployments"][0]["num_replicas"] = 1
    words = next(a for a in changed["applications"] if a["name"] == "expert-words")
    words["args"]["seed"] = 7
    try:
        bodies = asyncio.run(streams(graph, lambda: deploy(changed, tmp_path)))

        assert_complete(bodies)
        assert until(lambda: len(graph.processes("to-router:Ingress")) == 1, 60)
        assert until(lambda: before.isdisjoint(p.pid for p in graph.processes("expert-words:Expert")), 60)
    finally:
        deploy(running(graph), tmp_path)
        assert until(lambda: len(graph.processes("to-router:Ingress")) == 2, 60)
        wait_until_calm(graph)


def test_streams_finish_when_the_applications_are_removed_first(graph: Graph, tmp_path: Path) -> None:
    """See docs/operations.md: Serve's own shutdown ends its proxies first, which breaks open requests."""
    wait_until_calm(graph)
    nothing = {**running(graph), "applications": []}
    bodies = asyncio.run(streams(graph, lambda: deploy(nothing, tmp_path)))

    assert_complete(bodies)
    assert until(lambda: graph.processes("ServeReplica") == [], 60)
    graph.process.send_signal(signal.SIGINT)
    assert graph.process.wait(90) is not None
