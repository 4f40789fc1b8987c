"""Half load for a long time: nothing grows in any process."""

import asyncio
import sys
import time
from dataclasses import dataclass

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.deployments.e2e.conftest import EXPERTS, SERVICE_S, SLOTS, Graph
from tests.deployments.e2e.load import Load, Tally
from tests.deployments.e2e.test_faults import wait_until_calm

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(3600)]

MOST_GROWTH = 1.05
MOST_MORE = 20
"""Descriptors, threads or tasks that may come and go."""
HALF_LOAD_PER_S = 40.0
"""Less than half of the simulated capacity: the machine's processors are the narrower door."""


@dataclass(frozen=True, slots=True)
class Size:
    """What one process takes."""

    resident_mib: float
    descriptors: int
    threads: int

    @classmethod
    def of(cls, process: psutil.Process) -> "Size":
        return cls(process.memory_info().rss / 2**20, process.num_fds(), process.num_threads())


def sizes(graph: Graph) -> dict[str, Size]:
    """Every replica's, by its title."""
    found = {}
    for title in ("to-router:Ingress", "to-router:Router", *(f"expert-{name}:Expert" for name in EXPERTS)):
        for process in graph.processes(title):
            found[f"{title} {process.pid}"] = Size.of(process)
    return found


def tasks(graph: Graph) -> dict[str, float]:
    """Tasks of every ingress and router replica."""
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


@pytest.mark.parametrize("minutes", [2, 20])
def test_nothing_grows_at_half_load(graph: Graph, minutes: int) -> None:
    assert SLOTS * len(EXPERTS) / SERVICE_S / 2 >= HALF_LOAD_PER_S
    wait_until_calm(graph)
    load(graph, 30 * minutes / 2)  # a quarter of the time to warm up: pools, caches, the allocator
    time.sleep(5)
    before, tasks_before = sizes(graph), tasks(graph)
    tally = load(graph, 30 * minutes * 1.5)
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
        assert after[name].resident_mib <= MOST_GROWTH * was.resident_mib, name
        assert after[name].descriptors <= was.descriptors + MOST_MORE, name
        assert after[name].threads <= was.threads + MOST_MORE, name
    for replica, count in tasks_before.items():
        assert tasks_after[replica] <= count + MOST_MORE, replica
