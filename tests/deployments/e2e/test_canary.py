"""A canary on the real graph: two router replicas, ratings at two ingress replicas, one kill."""

import copy
import itertools
import random
import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest

from cluster.local.run import ROOT
from router.core import Preferences
from router.learning.log import log_files, read_records
from router.learning.record import DecisionRecord
from router.policy import Policy
from tests.deployments.e2e.conftest import Graph
from tests.deployments.e2e.test_faults import wait_until_calm
from tests.deployments.e2e.test_seeing import rate, send
from tests.deployments.e2e.test_stopping import deploy, running, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

MOST_OF_CANARY = 500
AT_ONCE = 8
numbers = itertools.count(1)


@dataclass(frozen=True)
class WithCanary:
    """The graph with a canary.

    Attributes:
        qualities: probabilities that a response of the canary, and one of the control, is rated 1.
    """

    graph: Graph
    policy_id: str
    qualities: tuple[float, float]
    rng: random.Random

    def send_and_rate(self, _: int = 0) -> tuple[bool, str]:
        """Send one request and rate it; returns whether the canary decided, and the request's id."""
        response = send(self.graph, f"What is {next(numbers)} + 4?")
        assert response.status_code == 200, response.text
        is_canary = response.headers.get("x-router-policy") == self.policy_id
        quality = float(self.rng.random() < self.qualities[not is_canary])
        request_id = response.headers["x-request-id"]
        assert rate(self.graph, request_id, quality) == 204
        return is_canary, request_id

    def wave(self, n: int) -> list[tuple[bool, str]]:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(self.send_and_rate, range(n)))

    def router_says(self) -> str:
        headers = {"authorization": f"Bearer {self.graph.key}"}
        parts = httpx.get(f"{self.graph.url}/ready", headers=headers, timeout=10).json()["parts"]
        return str(parts["router"]["why"])


@contextmanager
def canary_of(graph: Graph, folder: Path, qualities: tuple[float, float]) -> Iterator[WithCanary]:
    """Deploy a canary for half of the conversations, with two router replicas; undone at the end."""
    wait_until_calm(graph)
    before = running(graph)
    changed = copy.deepcopy(before)
    router = changed["applications"][0]["deployments"][1]
    old = Policy.load(ROOT / router["user_config"]["policy"])
    preferences = Preferences(cost_weight=0.7 + qualities[1] / 10)  # another policy, and another canary
    new = replace(old, preferences=preferences).save(folder / "policy", "# Card\n")
    router["num_replicas"] = 2
    router["user_config"]["canary"] = {"policy": str(folder / "policy"), "share": 0.5, "until": "2100-01-01"}
    deploy(changed, folder)
    try:
        assert until(lambda: len(graph.processes("to-router:Router")) == 2, 60)
        wait_until_calm(graph)
        yield WithCanary(graph, new.policy_id, qualities, random.Random(0))
    finally:
        deploy(before, folder)
        assert until(lambda: len(graph.processes("to-router:Router")) == 1, 60)
        wait_until_calm(graph)


def records(graph: Graph, ids: set[str]) -> dict[str, DecisionRecord]:
    return {
        one.request_id: one
        for file in log_files(graph.decisions)
        for one in read_records(file)
        if isinstance(one, DecisionRecord) and one.request_id in ids
    }


@pytest.mark.parametrize("qualities", [(0.0, 1.0), pytest.param((0.6, 0.7), marks=pytest.mark.slow)])
def test_a_worse_canary_is_rolled_back_and_a_new_replica_keeps_it(
    graph: Graph, tmp_path: Path, qualities: tuple[float, float]
) -> None:
    """Ten points worse in `make test-slow`; as bad as can be here."""
    with canary_of(graph, tmp_path, qualities) as canary:
        first: list[tuple[bool, str]] = []
        while not any(is_canary for is_canary, _ in first):
            first += canary.wave(8)
        first += canary.wave(24)
        graph.kill_one("to-router:Router")
        arms = Counter(is_canary for is_canary, _ in first)
        why = ""
        while "rolled back" not in why and arms[True] <= MOST_OF_CANARY:
            arms.update(is_canary for is_canary, _ in canary.wave(24))
            why = canary.router_says()
        assert until(lambda: len(graph.processes("to-router:Router")) == 2, 60)
        assert until(lambda: all("rolled back" in canary.router_says() for _ in range(8)), 60)
        after = canary.wave(24)
        ids = {id_ for _, id_ in first}
        assert until(lambda: len(records(graph, ids)) == len(ids), 10)
        logged = records(graph, ids)

    print(f"rolled back after {arms[True]} rated requests of the canary, {arms[False]} others: {why}")  # noqa: T201
    assert "rolled back, although user_config names it: quality -" in why
    counted = re.search(r"after (\d+) values of the canary and (\d+) of", why)
    assert counted is not None
    assert 50 <= int(counted[1]) <= arms[True]
    assert 50 <= int(counted[2]) <= arms[False]
    assert not any(is_canary for is_canary, _ in after)
    assert all((logged[id_].arm == "canary") == is_canary for is_canary, id_ in first)
