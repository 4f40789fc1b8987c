"""Processor time of ingress, router and HTTP front on a running cluster: per request, decision, chunk.

Reads the processor time of each process, so that the client and the experts on the same machine do not
count. The time that the processes use without requests is measured first and subtracted.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import httpx
import psutil

from cluster.local.dashboard_api import actor_pids
from load_tests.processes import cpu_s

PARTS = {
    "ingress": "ServeReplica:to-router:Ingress",
    "router": "ServeReplica:to-router:Router",
    "controller": "ServeController",
}
FRONT = "haproxy"
"""Serve's HTTP front is not an actor; its processes have the name of their program."""
LANES = 8
REQUESTS = 400
STREAMS, STREAM_TOKENS = 48, 200
IDLE_S = 6.0
_numbers = count()


def costs(url: str, expert: str) -> dict[str, float]:
    """Return processor milliseconds by part and kind of work, and each part's share of a core when idle."""
    idle = _idle()
    named = _per_piece(lambda: _send_all(url, expert, "the same question"), REQUESTS, idle)
    fresh = _per_piece(lambda: _send_all(url, "auto", None), REQUESTS, idle)
    known = _per_piece(lambda: _send_all(url, "auto", "the same question"), REQUESTS, idle)
    chunks = 0

    def stream() -> None:
        nonlocal chunks
        chunks = _stream_all(url, expert)

    streamed = _per_piece(stream, STREAMS, idle)
    per_stream = chunks / STREAMS
    return {
        **{f"idle_{part}_share": share for part, share in idle.items()},
        "ingress_named_ms": named["ingress"],
        "front_named_ms": named[FRONT],
        "ingress_routed_ms": fresh["ingress"],
        "router_new_query_ms": fresh["router"],
        "router_known_query_ms": known["router"],
        "ingress_chunk_ms": (streamed["ingress"] - named["ingress"]) / per_stream,
        "front_chunk_ms": (streamed[FRONT] - named[FRONT]) / per_stream,
        "chunks_per_stream": per_stream,
    }


def _idle() -> dict[str, float]:
    """Return the share of one core that each part uses without requests."""
    before = _spent()
    time.sleep(IDLE_S)
    return {part: (spent - before[part]) / IDLE_S for part, spent in _spent().items()}


def _per_piece(work: Callable[[], object], pieces: int, idle: Mapping[str, float]) -> dict[str, float]:
    """Return milliseconds of processor time per piece of work, by part."""
    before, began = _spent(), time.monotonic()
    work()
    took = time.monotonic() - began
    return {
        part: 1000 * (spent - before[part] - idle[part] * took) / pieces for part, spent in _spent().items()
    }


def _spent() -> dict[str, float]:
    """Return the processor seconds up to now, by part."""
    used = {part: sum(map(cpu_s, actor_pids(name))) for part, name in PARTS.items()}
    return {**used, FRONT: sum(map(cpu_s, _fronts()))}


def _fronts() -> Iterator[int]:
    for process in psutil.process_iter(["name"]):
        if process.info["name"] == FRONT:
            yield process.pid


def _send_all(url: str, model: str, query: str | None) -> None:
    """Send `REQUESTS` requests with short answers; without a query, each has a new one."""

    def lane(number: int) -> None:
        with httpx.Client(base_url=url, timeout=60) as client:
            for _ in range(number, REQUESTS, LANES):
                text = query or f"what is {next(_numbers)} + {number}, and why is that so?"
                client.post("/v1/chat/completions", json=_body(model, text, 1)).raise_for_status()

    with ThreadPoolExecutor(LANES) as pool:
        list(pool.map(lane, range(LANES)))


def _stream_all(url: str, model: str) -> int:
    """Send `STREAMS` streaming requests and return the number of chunks."""

    def lane(number: int) -> int:
        arrived = 0
        body = {**_body(model, "explain it", STREAM_TOKENS), "stream": True}
        with httpx.Client(base_url=url, timeout=120) as client:
            for _ in range(number, STREAMS, LANES):
                with client.stream("POST", "/v1/chat/completions", json=body) as response:
                    response.raise_for_status()
                    arrived += sum(line.startswith("data: {") for line in response.iter_lines())
        return arrived

    with ThreadPoolExecutor(LANES) as pool:
        return sum(pool.map(lane, range(LANES)))


def _body(model: str, text: str, tokens: int) -> dict[str, Any]:
    # The speed of a fast engine, so that chunks arrive separately.
    pace = {"ttft_ms": 0, "tokens": tokens, "tokens_per_s": 100 if tokens > 1 else None}
    return {
        "model": model,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": tokens,
        "simulate": {"*": pace},
    }
