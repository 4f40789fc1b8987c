"""The graph under faults: no request is lost or mixed up, and every request that can be answered is.

Simulated experts on real Ray. Every test prints its tally: requests sent, answered, rejected, lost.
"""

import asyncio
import contextlib
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import httpx
import psutil
import pytest

from tests.deployments.e2e.conftest import EXPERTS, SLOTS, Graph, Watch, sizes
from tests.deployments.e2e.load import CHAT, Load, Tally

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def run(graph: Graph, work: Callable[[Load], Coroutine[Any, Any, None]], **options: Any) -> Tally:
    """Do some work with a load of its own; prints and returns its tally."""

    async def working() -> Tally:
        load = Load(graph.url, options.pop("key", graph.key), **options)
        try:
            await work(load)
        finally:
            await load.aclose()
        return load.tally

    tally = asyncio.run(working())
    sys.stdout.write(f"{tally}\n")
    return tally


def failing(*modes: str) -> Callable[[int], dict[str, Any]]:
    """Let every fourth request make the first expert of its ranking fail in one of the given modes.

    With an odd number of modes each applies to streaming and to non-streaming responses.
    """

    def body(number: int) -> dict[str, Any]:
        stream = {"stream": number % 8 < 4}
        if number % 4:
            return stream
        failure = {"mode": modes[number // 4 % len(modes)], "rate": 1.0}
        return {**stream, "simulate": {"arithmetic": {"failures": [failure]}}}

    return body


def fill_disk(graph: Graph) -> None:
    """Leave no space where the decision log is."""
    if graph.small_disk:
        with (graph.decisions.parent / "filler").open("wb") as filler, contextlib.suppress(OSError):
            while True:
                filler.write(bytes(2**20))
                filler.flush()
    else:
        graph.decisions.rename(graph.decisions.with_suffix(".away"))
        graph.decisions.write_text("in the way", encoding="utf-8")


def clear_disk(graph: Graph) -> None:
    """Let the decision log write again."""
    if graph.small_disk:
        (graph.decisions.parent / "filler").unlink()
    else:
        graph.decisions.unlink()
        graph.decisions.with_suffix(".away").rename(graph.decisions)


def records(graph: Graph) -> dict[str, float]:
    """Outcome → records of the decision log, over all replicas."""
    time.sleep(1.1)  # the ingress caches metrics for a second
    text = httpx.get(f"{graph.url}/metrics", timeout=10).text
    counts: Counter[str] = Counter()
    for outcome, count in re.findall(
        r'^to_router_decision_log_records_total\{.*outcome="(\w+)".*\} (\S+)$', text, re.MULTILINE
    ):
        counts[outcome] += float(count)
    return counts


@pytest.mark.parametrize("requests", [1000, pytest.param(2000, marks=pytest.mark.slow)])
def test_requests_under_changing_faults_are_neither_lost_nor_mixed_up(graph: Graph, requests: int) -> None:
    """Processes die, responses are garbage or end early, the disk is full: nothing is lost or mixed up.

    With the retries of the openai client: a killed ingress replica cannot answer its requests in flight.
    """
    key, _ = graph.new_key(requests_per_minute=1_000_000)
    sys.stdout.write(f"the log's disk {'is filled' if graph.small_disk else 'is removed'}\n")
    changes = (
        (0.15, lambda: graph.kill_one("expert-arithmetic:Expert")),
        (0.3, lambda: fill_disk(graph)),
        (0.4, lambda: graph.kill_one("to-router:Router")),
        (0.5, lambda: clear_disk(graph)),
        (0.6, lambda: graph.kill_one("LedgerActor")),
        (0.75, lambda: graph.kill_one("expert-chat:Expert")),
        (0.85, lambda: graph.kill_one("to-router:Ingress")),
    )
    faults = {round(share * requests): change for share, change in changes}
    lanes, modes = 16, ("garbage", "raise", "status", "hang", "half_stream")
    body = failing(*modes)
    tally = run(graph, lambda load: load.steady(requests, lanes, body, faults), key=key)
    half_streams = sum(
        body(n)["stream"] and "half_stream" in str(body(n).get("simulate")) for n in range(requests)
    )

    assert tally.sent == requests
    assert tally.lost == []
    assert tally.mixed == []
    assert tally.rejected == {}
    assert tally.answered + tally.interrupted == requests
    # Only streams that had begun: those configured to end early, and those of the two killed experts.
    assert tally.interrupted <= half_streams + 2 * lanes
    assert tally.broken_connections <= 3 * lanes
    # How many depends on how long the circuit breakers stay open: their experts get no requests.
    assert tally.fallbacks > len(modes)
    assert tally.reasons["fallback_expert"] > requests / 20
    assert tally.reasons["fallback_router"] > 0
    assert records(graph)["failed"] > 0


def not_closed(graph: Graph) -> set[str] | None:
    """The experts whose circuit breaker is not closed in some replica; `None` where none reports one."""
    text = httpx.get(f"{graph.url}/metrics", timeout=10).text
    states = re.findall(r'^to_router_breaker_state\{.*expert="([^"]+)".*\} (\S+)$', text, re.MULTILINE)
    return {expert for expert, state in states if float(state) > 0} if states else None


def wait_until_calm(graph: Graph) -> None:
    """Wait until every ingress replica reports all parts ready, and every circuit breaker is closed.

    Each replica refreshes once a second. A breaker that faults left open closes by a request that succeeds.
    """
    end, calm = time.monotonic() + 120, 0
    headers = {"authorization": f"Bearer {graph.key}"}
    left: set[str] | None = None
    while time.monotonic() < end:
        try:
            ready = httpx.get(f"{graph.url}/ready", timeout=5).status_code == 200
            left = not_closed(graph)
            for expert in left or ():
                body = {"model": expert, "messages": [{"role": "user", "content": "close the breaker"}]}
                httpx.post(f"{graph.url}{CHAT}", json=body, headers=headers, timeout=30)
        except httpx.TransportError:
            ready = False
        calm = calm + 1 if ready and left == set() else 0
        if calm == 6:
            return
        time.sleep(0.3)
    parts = httpx.get(f"{graph.url}/ready", timeout=5).text
    raise AssertionError(f"breakers not closed: {left}; {parts}")


def overload(
    graph: Graph,
    seconds: float,
    service_s: float,
    experts: tuple[str, ...] = EXPERTS,
    *,
    share: float = 0.8,
) -> Tally:
    """Offer five times what the experts can serve; their capacity is slots over service time.

    At least this share of it must be answered.
    """
    slow = {"ttft_ms": 1000 * service_s, "echo": True, "tokens_per_s": None, "slots": SLOTS}
    body = {"simulate": {"*": slow}, "routing": {"experts": list(experts)}}
    capacity = SLOTS * len(experts) / service_s
    tally = run(graph, lambda load: load.at_rate(5 * capacity, seconds, lambda _: body), retries=0)
    # Slots are filled and released in step, so that many or none may end just within a window: an answer
    # counts with the part of its service time that lies in it.
    begun, ended = tally.offered_over
    full = begun + service_s
    served_s = sum(max(0.0, min(at, ended) - max(at - service_s, full)) for at in tally.answered_at)
    goodput = served_s / service_s / (ended - full)
    offered = tally.sent / (ended - begun)
    sys.stdout.write(
        f"capacity {capacity:.1f}/s, offered {offered:.1f}/s ({offered / capacity:.1f} times), "
        f"answered {goodput:.1f}/s ({goodput / capacity:.0%})\n"
    )

    assert tally.lost == tally.mixed == []
    assert sum(tally.rejected.values()) + tally.answered == tally.sent
    assert {rejection[:3] for rejection in tally.rejected} <= {"429", "503"}
    assert tally.without_retry_after == 0
    if offered < 4 * capacity:
        pytest.skip(f"this machine is too busy: {offered:.0f} requests a second are no overload")
    assert goodput >= share * capacity
    return tally


def test_overload_is_served_at_capacity_and_rejected_beyond(graph: Graph) -> None:
    """On one expert for seconds here; on all of them for a minute in `make test-slow`.

    A queue that collapses answers next to nothing; a machine that does other work answers less than all.
    """
    wait_until_calm(graph)
    overload(graph, 8, 1.0, EXPERTS[:1], share=0.5)


@pytest.mark.slow
def test_a_minute_of_overload_leaves_memory_as_it_was(graph: Graph) -> None:
    """With answers of four seconds, two cores can send five times the capacity."""
    wait_until_calm(graph)
    overload(graph, 20, 4.0)
    before = sizes(graph)
    overload(graph, 60, 4.0)
    time.sleep(5)
    after = sizes(graph)
    for name, was in before.items():
        sys.stdout.write(f"{name}: {was.resident_mib:.0f} -> {after[name].resident_mib:.0f} MiB\n")

    assert after.keys() == before.keys()
    for name, was in before.items():
        assert after[name].resident_mib <= 1.05 * was.resident_mib, name


async def leave_at_random(graph: Graph, clients: int, seed: int) -> None:
    """Let clients disconnect after a random time, in every phase of a request."""
    drawn = random.Random(seed)
    slow = {"ttft_ms": 300.0, "tokens_per_s": 20.0, "tokens": 64, "slots": SLOTS, "echo": False}

    async def one(client: httpx.AsyncClient, number: int) -> None:
        body = {
            "model": "auto",
            "messages": [{"role": "user", "content": f"What is {number} + {number}?"}],
            "stream": number % 2 == 0,
            "simulate": {"*": slow},
        }
        try:
            async with asyncio.timeout(drawn.uniform(0.0, 1.5)):
                async with client.stream("POST", CHAT, json=body) as response:
                    async for _ in response.aiter_bytes():
                        pass
        except (TimeoutError, httpx.TransportError):
            pass

    headers = {"authorization": f"Bearer {graph.key}"}
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=graph.url, timeout=30, headers=headers, limits=limits) as client:
        await asyncio.gather(*(one(client, number) for number in range(clients)))


def seconds_until_idle(watch: Watch, within_s: float) -> float:
    """The time until the engines are idle."""
    began = time.monotonic()
    assert watch.until_idle(within_s)
    took = time.monotonic() - began
    sys.stdout.write(f"engines idle {took:.2f} s after the last client left\n")
    return took


@pytest.mark.parametrize("wave", range(2))
def test_engines_come_to_rest_when_clients_leave(graph: Graph, watch: Watch, wave: int) -> None:
    """Ten waves of fifty, and the time that it takes, in `make test-slow`; two waves here."""
    wait_until_calm(graph)
    asyncio.run(leave_at_random(graph, 50, seed=wave))

    assert seconds_until_idle(watch, within_s=30.0) >= 0


@pytest.mark.slow
def test_engines_come_to_rest_each_time_that_five_hundred_clients_left(graph: Graph, watch: Watch) -> None:
    wait_until_calm(graph)
    took = []
    for wave in range(10):
        asyncio.run(leave_at_random(graph, 50, seed=100 + wave))
        took.append(seconds_until_idle(watch, within_s=30.0))

    assert max(took) <= 2.0


def test_a_hundred_clients_of_one_key_never_pass_its_limit_over_two_replicas(graph: Graph) -> None:
    limit = 300
    key, _ = graph.new_key(requests_per_minute=limit)
    tally = run(graph, lambda load: load.steady(900, 100, lambda _: {}), key=key, retries=0)

    # A busy machine may reject some requests that the key admits: they count against its limit all the same.
    admitted = tally.sent - tally.rejected["429 rate_limit_exceeded"]
    assert tally.lost == tally.mixed == []
    assert 0.99 * limit <= admitted <= 1.01 * limit

    graph.kill_one("LedgerActor")
    time.sleep(1.0)
    again = run(graph, lambda load: load.steady(50, 10, lambda _: {}), key=key, retries=0)
    assert again.lost == []
    assert admitted + again.sent - again.rejected["429 rate_limit_exceeded"] <= 1.01 * limit


def wait_until_the_ledger_responds(graph: Graph) -> None:
    """Wait until no ingress replica decides by its own counts alone, as it does while the ledger restarts."""
    end, calm = time.monotonic() + 60, 0
    while time.monotonic() < end:
        text = httpx.get(f"{graph.url}/metrics", timeout=10).text
        away = re.findall(r"^to_router_ledger_away\S* (\S+)$", text, re.MULTILINE)
        calm = calm + 1 if away and not any(float(value) for value in away) else 0
        if calm == 6:
            return
        time.sleep(0.5)
    raise AssertionError("the ledger does not respond")


def test_a_limit_of_concurrent_requests_holds_over_two_replicas(graph: Graph) -> None:
    """Streams that do not end by themselves hold the limit, however slow the machine is."""
    key, _ = graph.new_key(max_concurrent=5)
    wait_until_the_ledger_responds(graph)
    endless = {"ttft_ms": 0.0, "echo": False, "tokens": 64, "tokens_per_s": 0.5}
    body = {"model": "auto", "messages": [{"role": "user", "content": "hello"}], "stream": True,
            "simulate": {"*": endless}}  # fmt: skip

    async def beside_held_streams(load: Load) -> None:
        headers = {"authorization": f"Bearer {key}"}
        async with (
            httpx.AsyncClient(base_url=graph.url, timeout=60, headers=headers) as client,
            contextlib.AsyncExitStack() as held,
        ):
            for _ in range(5):
                response = await held.enter_async_context(client.stream("POST", CHAT, json=body))
                assert response.status_code == 200
            await load.steady(55, 55, lambda _: {})

    tally = run(graph, beside_held_streams, key=key, retries=0)

    assert tally.lost == []
    assert tally.rejected == {"429 concurrency_limit_exceeded": 55}


def test_a_revoked_key_stops_within_two_seconds(graph: Graph) -> None:
    key, key_id = graph.new_key()
    body = {"model": "auto", "messages": [{"role": "user", "content": "hello"}]}

    def status() -> int:
        return httpx.post(
            graph.url + CHAT, json=body, headers={"authorization": f"Bearer {key}"}, timeout=30
        ).status_code

    assert status() == 200
    graph.revoke(key_id)
    time.sleep(2.0)

    assert {status() for _ in range(10)} == {401}


@pytest.mark.parametrize(
    "headers",
    [
        {"x-request-timeout-seconds": "0.001"},
        {"x-request-disconnect-disabled": "?1"},
        {"serve_multiplexed_model_id": "x"},
        {"x-request-id": b"\xff\xfe\x80"},
        {"x-anything": b"\xff\x80"},
        {"traceparent": b"\xff"},
    ],
    ids=["timeout", "disconnect", "multiplexed", "bad request id", "bad bytes", "bad trace"],
)
def test_headers_that_would_control_or_break_serve_do_nothing(graph: Graph, headers: dict[str, Any]) -> None:
    raw = [(b"authorization", f"Bearer {graph.key}".encode())]
    raw += [
        (name.encode(), value if isinstance(value, bytes) else value.encode())
        for name, value in headers.items()
    ]
    body = {"model": "auto", "messages": [{"role": "user", "content": "hello"}]}
    response = httpx.post(graph.url + CHAT, json=body, headers=raw, timeout=30)

    assert response.status_code == 200, response.text
    assert response.headers.get_list("x-request-id") == [response.headers["x-request-id"]]


def test_no_process_is_left_over_after_faults(graph: Graph) -> None:
    wait_until_calm(graph)

    for name in EXPERTS:
        assert len(graph.processes(f"expert-{name}:Expert")) == 1
    assert len(graph.processes("to-router:Ingress")) == 2
    assert all(process.status() != psutil.STATUS_ZOMBIE for process in graph.processes("ServeReplica"))
