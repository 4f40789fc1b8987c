"""Requests and processes at their worst: what kills, hangs or takes long stays its own request's matter.

Each test prints its figures; the long forms are marked slow.
"""

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.deployments.e2e.conftest import EXPERTS, Graph
from tests.deployments.e2e.load import CHAT
from tests.deployments.e2e.test_faults import not_closed, run, wait_until_calm
from tests.deployments.e2e.test_stopping import deploy, running, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

ECHO = {"ttft_ms": 50.0, "tokens_per_s": None, "echo": True}
DEATH = {"simulate": {"*": {**ECHO, "failures": [{"mode": "raise"}]}}}
"""A request that fails at every expert that accepts it."""


def attempts(graph: Graph) -> dict[str, float]:
    """Attempts so far, by outcome, over all replicas."""
    time.sleep(1.1)  # the ingress caches metrics for a second
    counts = {"answered": 0.0, "failed": 0.0}
    for line in httpx.get(f"{graph.url}/metrics", timeout=10).text.splitlines():
        if line.startswith("to_router_attempts_total{"):
            counts["answered" if 'outcome="answered"' in line else "failed"] += float(line.rsplit(" ", 1)[1])
    return counts


def ask(graph: Graph, text: str, key: str = "", **fields: Any) -> httpx.Response:
    body = {"model": "auto", "messages": [{"role": "user", "content": text}], **fields}
    headers = {"authorization": f"Bearer {key or graph.key}"}
    return httpx.post(graph.url + CHAT, json=body, headers=headers, timeout=180)


def deaths_among(graph: Graph, requests: int) -> None:
    """Let every eleventh request be one that fails wherever it goes."""
    key, _ = graph.new_key(requests_per_minute=1_000_000)
    wait_until_calm(graph)
    before = attempts(graph)
    deadly = len(range(0, requests, 11))
    tally = run(
        graph,
        lambda load: load.steady(requests, 8, lambda number: {} if number % 11 else DEATH),
        key=key,
        retries=0,
    )
    after = attempts(graph)
    sys.stdout.write(
        f"failed attempts {after['failed'] - before['failed']:.0f} of {deadly} deadly requests\n"
    )

    assert tally.lost == tally.mixed == []
    assert tally.answered == requests - deadly
    assert tally.rejected == {"503 expert_unavailable": deadly}
    assert after["failed"] - before["failed"] <= 2 * deadly
    assert not_closed(graph) == set()


def test_a_query_of_death_meets_two_experts_and_harms_no_other(graph: Graph) -> None:
    deaths_among(graph, 110)


@pytest.mark.slow
def test_a_hundred_deaths_among_a_thousand_lose_no_other(graph: Graph) -> None:
    deaths_among(graph, 1100)


def test_a_query_that_ends_processes_ends_two(graph: Graph) -> None:
    wait_until_calm(graph)
    before = {process.pid for name in EXPERTS for process in graph.processes(f"expert-{name}:Expert")}
    deadly = {"simulate": {"*": {"failures": [{"mode": "die"}]}}}
    response = ask(graph, "What is 2 + 2?", **deadly)
    ordinary = ask(graph, "What is 2 + 3?")
    wait_until_calm(graph)
    after = {process.pid for name in EXPERTS for process in graph.processes(f"expert-{name}:Expert")}

    assert response.status_code == 503
    assert ordinary.status_code == 200
    assert len(before - after) <= 2


async def long_among_short(graph: Graph, long_s: float, short_s: float) -> tuple[httpx.Response, list[int]]:
    """One long non-streaming answer, and short ones from the same expert until it is there."""
    headers = {"authorization": f"Bearer {graph.key}"}
    statuses: list[int] = []

    def body(number: int, seconds: float) -> dict[str, Any]:
        messages = [{"role": "user", "content": f"What is {number} + 1?"}]
        slow = {"ttft_ms": 1000 * seconds, "tokens_per_s": None}
        return {"model": "auto", "messages": messages, "simulate": {"*": slow}}

    async with httpx.AsyncClient(base_url=graph.url, timeout=180, headers=headers) as client:
        longest = asyncio.create_task(client.post(CHAT, json=body(0, long_s)))
        number = 0
        while not longest.done():
            number += 1
            statuses.append((await client.post(CHAT, json=body(number, short_s))).status_code)
        return await longest, statuses


def assert_one_attempt(graph: Graph, long_s: float, short_s: float) -> None:
    wait_until_calm(graph)
    before = attempts(graph)
    response, statuses = asyncio.run(long_among_short(graph, long_s, short_s))
    after = attempts(graph)
    count = response.headers["x-router-attempts"]
    sys.stdout.write(f"{long_s:g} s among {len(statuses)} of {short_s:g} s: {count} attempt\n")

    assert response.status_code == 200
    assert response.headers["x-router-attempts"] == "1"
    assert set(statuses) == {200}
    assert after["failed"] == before["failed"]
    assert not_closed(graph) == set()


def test_a_long_answer_among_short_ones_takes_one_attempt(graph: Graph) -> None:
    """Longer than the six seconds after which a silent expert is given up here."""
    assert_one_attempt(graph, 9.0, 0.1)


@contextlib.contextmanager
def request_timeout(graph: Graph, seconds: float, folder: Path) -> Iterator[None]:
    """Deploy another deadline of requests."""
    changed = running(graph)
    changed["applications"][0]["args"]["ingress"]["request_timeout_s"] = seconds
    try:
        deploy(changed, folder)
        wait_until_calm(graph)
        yield
    finally:
        deploy(running(graph), folder)
        wait_until_calm(graph)


@pytest.mark.slow
def test_a_minute_among_half_seconds_takes_one_attempt(graph: Graph, tmp_path: Path) -> None:
    with request_timeout(graph, 120, tmp_path):
        assert_one_attempt(graph, 60.0, 0.5)


def test_a_stream_that_stalls_ends_and_frees_its_slot(graph: Graph) -> None:
    """The idle limit is 3 s here."""
    wait_until_calm(graph)
    stalls = {"tokens_per_s": None, "failures": [{"mode": "stall", "after_tokens": 2}]}
    began = time.monotonic()
    response = ask(graph, "What is 2 + 2?", stream=True, simulate={"*": stalls})
    took_s = time.monotonic() - began
    sys.stdout.write(f"a stalled stream ended after {took_s:.1f} s\n")

    assert response.text.endswith("data: [DONE]\n\n")
    assert "stream_interrupted" in response.text
    assert took_s < 15  # the request's own deadline is 20 s


@contextlib.contextmanager
def stopped(graph: Graph, title: str) -> Iterator[None]:
    """SIGSTOP a process, and let it go on afterwards."""
    process = graph.processes(title)[0]
    process.suspend()
    try:
        yield
    finally:
        process.resume()


def load_while_stopped(graph: Graph, title: str, requests: int) -> Any:
    key, _ = graph.new_key(requests_per_minute=1_000_000)
    wait_until_calm(graph)
    with stopped(graph, title):
        tally = run(graph, lambda load: load.steady(requests, 8, lambda _: {}), key=key)
    wait_until_calm(graph)
    recovered = ask(graph, "What is 2 + 2?")
    sys.stdout.write(f"{title} stopped: {json.dumps(tally.reasons)}\n")

    assert tally.lost == tally.mixed == []
    assert tally.answered == requests
    assert recovered.status_code == 200
    return tally


@pytest.mark.parametrize("requests", [100, pytest.param(3000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("title", ["LedgerActor", "to-router:Router", "expert-arithmetic:Expert"])
def test_a_stopped_process_loses_no_request(graph: Graph, title: str, requests: int) -> None:
    tally = load_while_stopped(graph, title, requests)

    if title == "to-router:Router":
        assert tally.reasons.keys() <= {"fallback_router", "fallback_expert"}


@pytest.mark.parametrize("seconds", [6, pytest.param(600, marks=pytest.mark.slow)])
def test_a_key_is_revoked_while_the_controller_is_away(graph: Graph, seconds: float) -> None:
    """Serve's controller is on the head: without it requests go on, and so do changes of the key file."""
    key, record_id = graph.new_key()
    wait_until_calm(graph)
    with stopped(graph, "ServeController"):
        time.sleep(seconds / 2)
        before = ask(graph, "What is 2 + 2?", key=key).status_code
        graph.revoke(record_id)
        time.sleep(2)
        revoked = ask(graph, "What is 2 + 2?", key=key).status_code
        time.sleep(seconds / 2)
        others = ask(graph, "What is 2 + 3?").status_code
    wait_until_calm(graph)

    assert (before, revoked, others) == (200, 401, 200)


def test_a_bad_configuration_followed_by_a_kill_is_no_outage(graph: Graph, tmp_path: Path) -> None:
    wait_until_calm(graph)
    wrong = running(graph)
    wrong["applications"][0]["deployments"][0]["user_config"]["limits"]["max_in_flight"] = -1
    replicas = replicas_of(graph)
    try:
        deploy(wrong, tmp_path)
        killed = graph.kill_one("to-router:Ingress")
        tally = run(graph, lambda load: load.steady(100, 8, lambda _: {}))
        returned = until(lambda: len(replicas_of(graph) - {killed}) == len(replicas), 60)
        headers = {"authorization": f"Bearer {graph.key}"}
        problems = httpx.get(f"{graph.url}/ready", headers=headers, timeout=10).text
    finally:
        deploy(running(graph), tmp_path)
        wait_until_calm(graph)

    assert tally.lost == tally.mixed == []
    assert tally.answered == 100
    assert returned
    assert "max_in_flight" in problems


def replicas_of(graph: Graph) -> set[int]:
    return {process.pid for process in graph.processes("to-router:Ingress")}
