"""Several nodes on one machine: each pool's node is what the configuration asks; slow: the real cluster."""

import copy
import os
import shutil
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import yaml

from cluster.check import check_file
from cluster.local import nodes
from cluster.local.nodes import CONFIG, HEAD_IP, HTTP_PORT, ClusterNotStarted, Machine
from cluster.pools import asks

URL = f"http://{HEAD_IP}:{HTTP_PORT}"
REDEPLOYS = 20
LOAD_THREADS = 4
RETURNS_WITHIN_S = 90.0


def config() -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    return data


def by_resources() -> dict[str, Any]:
    """The same graph, every pool named by a custom resource instead of a label."""
    data = config()
    for app in data["applications"]:
        for part in (app["args"], app["args"].get("router", {}), app["args"].get("ingress", {})):
            labels = (part.get("pool") or {}).get("labels")
            if labels:
                part["pool"] = {"resources": {f"pool_{labels['pool']}": 0.001}}
    return data


def test_the_multi_pool_configuration_has_no_fault() -> None:
    assert check_file(CONFIG, policy=False) == []


def test_every_pool_is_a_node_with_room_for_all_replicas_of_its_expert() -> None:
    found = {
        group.name: (dict(group.labels), dict(group.custom), group.gpus) for group in nodes.pools(config())
    }

    assert found == {
        "door": ({"pool": "door"}, {}, 0),
        "math": ({"pool": "math"}, {}, 2),
        "text": ({"pool": "text"}, {}, 4),
        "pool-facts": ({}, {"pool_facts": 1000.0}, 2),
    }


def test_a_node_starts_with_its_pools_labels_resources_and_gpus() -> None:
    by_name = {group.name: nodes.node_command(group, "10.0.0.2") for group in nodes.pools(config())}

    assert "--labels=pool=math" in by_name["math"]
    assert "--num-gpus=4" in by_name["text"]
    assert '--resources={"pool_facts": 1000.0}' in by_name["pool-facts"]


def test_a_simulated_tensor_parallel_replica_asks_for_two_bundles_on_one_node() -> None:
    ask = next(ask for ask in asks(config()) if ask.app == "expert-words")

    assert [dict(bundle) for bundle in ask.bundles] == [{"CPU": 0.1, "GPU": 1.0}] * 2
    assert ask.pieces == ({"CPU": 0.2, "GPU": 2.0},)


def test_a_pool_that_is_not_there_cannot_join() -> None:
    with pytest.raises(ClusterNotStarted, match="there is no pool 'mars'; there are door"):
        Machine().join(config(), "mars")


# --- the real thing ---

real = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("ip") is None, reason="network namespaces need root and `ip`"
    ),
]


@pytest.fixture(scope="module", params=["labels", "resources"])
def running(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    graph = config() if request.param == "labels" else by_resources()
    machine = Machine()
    machine.down()
    try:
        machine.up(graph)
        nodes.deploy(graph)
        yield graph
    finally:
        machine.down()


def ask() -> int:
    body = {"model": "auto", "messages": [{"role": "user", "content": "what is 2 + 2?"}], "max_tokens": 4}
    return httpx.post(f"{URL}/v1/chat/completions", json=body, timeout=60).status_code


class Load:
    """Steady requests, at most `LOAD_THREADS` at a time."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(LOAD_THREADS)]

    def _run(self) -> None:
        while not self._end.is_set():
            self.statuses.append(ask())
            self._end.wait(0.05)

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()


class TestRealNodes:
    """One cluster for each way to name a pool."""

    pytestmark = real

    def test_no_replica_strays_over_twenty_redeploys(self, running: dict[str, Any]) -> None:
        experts = {app["name"] for app in running["applications"][1:]}
        for turn in range(1, REDEPLOYS + 1):
            changed = copy.deepcopy(running)
            for app in changed["applications"][1:]:
                app["args"]["seed"] = turn

            took = nodes.deploy(changed)
            print(f"redeploy {turn}: {took:.1f} s", flush=True)  # noqa: T201 - figures, with -s

            assert {app for app, _, _ in nodes.replicas()} >= experts
            assert nodes.strays(changed) == []

    def test_a_killed_node_loses_no_request_and_its_replica_returns(self, running: dict[str, Any]) -> None:
        name = next(g.name for g in nodes.pools(running) if g.name.endswith("math"))
        nodes.deploy(running)
        with Load() as load:
            time.sleep(3)
            Machine().kill(name)
            time.sleep(15)
        lost = [status for status in load.statuses if status != 200]

        assert len(load.statuses) > 20
        assert lost == []

        began = time.monotonic()
        Machine().join(running, name)
        while time.monotonic() - began < RETURNS_WITHIN_S:
            if "expert-arithmetic" in {app for app, _, _ in nodes.replicas()}:
                break
            time.sleep(0.5)
        print(f"replica back {time.monotonic() - began:.1f} s after its node joined", flush=True)  # noqa: T201
        assert nodes.strays(running) == []
        assert "expert-arithmetic" in {app for app, _, _ in nodes.replicas()}


def test_ending_a_cluster_that_is_not_there_does_nothing(tmp_path: Any) -> None:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and `ip`")
    if nodes.STATE.exists():
        pytest.skip("a local cluster runs on this machine")

    Machine(tmp_path / "nodes").down()

    assert not (tmp_path / "nodes").exists()
