"""Half load for a long time: no process grows."""

import asyncio
import sys
import time

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.deployments.e2e.conftest import EXPERTS, SERVICE_S, SLOTS, Graph, sizes
from tests.deployments.e2e.load import Load, Tally
from tests.deployments.e2e.test_faults import wait_until_calm

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(3600)]

MAX_GROWTH = 1.05
MAX_MORE = 20
"""Descriptors, threads or tasks that may come and go."""
HALF_LOAD_PER_S = 40.0
"""Less than half of the simulated capacity: the machine's processors are the bottleneck."""


def tasks(graph: Graph) -> dict[str, float]:
    """The number of tasks in each ingress and router replica."""
    text = httpx.get(f"{graph.url}/metrics", timeout=10).text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    return {sample.labels["replica"]: sample.value for sample in families["to_router_tasks"].samples}


def load(graph: Graph, seconds: float) -> Tally:
    async def working() -> Tally:
        sender = Load(graph.url, graph.key)
        try:
            await sender.at_rate(HALF_LOAD_PER_S, seconds, lambda number: {"stream": number % 2 == 0})
        finally:
            await sender.aclose()
        return sender.tally

    return asyncio.run(working())


def test_nothing_grows_at_half_load(graph: Graph, request: pytest.FixtureRequest) -> None:
    """For 20 minutes, or as long as `--soak-minutes` says."""
    minutes = request.config.getoption("--soak-minutes")
    assert SLOTS * len(EXPERTS) / SERVICE_S / 2 >= HALF_LOAD_PER_S
    wait_until_calm(graph)
    load(graph, 60 * minutes / 4)  # a quarter of the time to warm up: pools, caches, the allocator
    time.sleep(5)
    before, tasks_before = sizes(graph), tasks(graph)
    tally = load(graph, 60 * minutes * 3 / 4)
    time.sleep(5)
    after, tasks_after = sizes(graph), tasks(graph)
    sys.stdout.write(f"{tally}\n")
    for name in before:
        sys.stdout.write(f"{name}: {before[name]} -> {after.get(name)}\n")
    sys.stdout.write(f"tasks: {tasks_before} -> {tasks_after}\n")

    assert tally.lost == tally.mixed == []
    assert tally.answered == tally.sent
    assert after.keys() == before.keys()
    for name, was in before.items():
        assert after[name].resident_mib <= MAX_GROWTH * was.resident_mib, name
        assert after[name].descriptors <= was.descriptors + MAX_MORE, name
        assert after[name].threads <= was.threads + MAX_MORE, name
    for replica, count in tasks_before.items():
        assert tasks_after[replica] <= count + MAX_MORE, replica
