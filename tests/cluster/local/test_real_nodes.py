"""A real cluster of five nodes on this machine, each in a network namespace. Slow; `-s` prints figures.

A head that runs no replica, a node for ingress and router, three pools; once with every pool named by
labels, once by custom resources. The experts are simulated, except in one test.
"""

import json
import os
import shutil
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from cluster.check.config import check_file
from cluster.local import nodes
from cluster.local.dashboard_api import (
    DASHBOARD,
    HTTP_PORT,
    application_states,
    await_ready,
    deploy,
    replicas,
)
from cluster.local.network import HEAD_IP
from cluster.local.nodes import CONFIG, HEAD, Machine, addresses, strays
from tests.cluster.configs import written

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("ip") is None, reason="network namespaces need root and `ip`"
    ),
]
WITH_REDIS = shutil.which("redis-server") is not None
HEAD_URL = f"http://{HEAD_IP}:{HTTP_PORT}"
REDEPLOYS = 20
WITHIN_S = 120.0
GONE_S = 15.0
VANISHED_S = 60.0
"""Ray needs half a minute to declare a silent node dead."""
EXPERTS = ("expert-arithmetic", "expert-atlas", "expert-words")


def config() -> dict[str, Any]:
    """The multi-pool configuration, without the sharing that YAML anchors leave."""
    data: dict[str, Any] = json.loads(json.dumps(yaml.safe_load(CONFIG.read_text(encoding="utf-8"))))
    return data


def named_by(kind: str) -> dict[str, Any]:
    """The configuration with every pool named by labels, or by custom resources."""
    data = config()
    for app in data["applications"]:
        for part in (app["args"], app["args"].get("router", {}), app["args"].get("ingress", {})):
            if (pool := part.get("pool")) is None:
                continue
            name = (pool.get("labels") or {}).get("pool") or next(iter(pool["resources"])).removeprefix(
                "pool_"
            )
            part["pool"] = (
                {"labels": {"pool": name}} if kind == "labels" else {"resources": {f"pool_{name}": 0.001}}
            )
    return data


def reseeded(graph: dict[str, Any], seed: int) -> dict[str, Any]:
    """The graph with every expert's shape changed, so that each of them is deployed again."""
    changed = json.loads(json.dumps(graph))
    for app in changed["applications"][1:]:
        app["args"]["seed"] = seed
    return dict(changed)


def with_engines(graph: dict[str, Any]) -> dict[str, Any]:
    """The graph with real vLLM engines on processors; that of two bundles stays simulated."""
    changed = json.loads(json.dumps(graph))
    for app in changed["applications"][1:]:
        name = app["args"]["name"]
        if name != "words":
            app["import_path"] = "deployments.app:build_expert"
            app["args"] = {
                "name": name,
                "model": f"cluster/local/experts/{name}",
                "pool": app["args"]["pool"],
                "accelerator": "cpu",
                "cpus_per_worker": 0.1,
                "engine": {
                    "max_model_len": 512,
                    "enforce_eager": True,
                    "max_num_seqs": 8,
                    "kv_cache_memory_bytes": 128 * 1024 * 1024,
                },
            }
    return dict(changed)


@pytest.fixture(scope="module")
def machine() -> Machine:
    return Machine()


@pytest.fixture(scope="module", params=["labels", "resources"])
def running(request: pytest.FixtureRequest, machine: Machine) -> Iterator[dict[str, Any]]:
    graph = named_by(request.param)
    machine.down()
    try:
        machine.up(graph, redis=WITH_REDIS)
        took = deploy(graph)
        await_ready(HEAD_URL)
        report(f"{len(nodes.alive_nodes())} nodes, pools by {request.param}, deployed in {took:.1f} s")
        yield graph
    finally:
        machine.down()


def report(figure: str) -> None:
    print(figure, flush=True)  # noqa: T201 - figures, with -s


def named(url: str, model: str, tokens: int = 4, *, stream: bool = False) -> httpx.Response:
    messages = [{"role": "user", "content": "what is 2 + 2?"}]
    body = {"model": model, "messages": messages, "max_tokens": tokens, "stream": stream}
    return httpx.post(f"{url}/v1/chat/completions", json=body, timeout=90)


def outcome_of(response: httpx.Response) -> str:
    """The reason header of a complete response, `cut`, or the failure.

    `cut` is a stream that ended with an error event, as it must when its node is lost after the first byte.
    """
    streamed = response.headers.get("content-type", "").startswith("text/event-stream")
    if response.status_code != 200 or (streamed and not response.text.rstrip().endswith("data: [DONE]")):
        return f"lost: {response.status_code}"
    return "cut" if streamed and '"error"' in response.text else response.headers["x-router-reason"]


class Load:
    """Steady requests to `auto`, in `LANES`; every failure counts as lost."""

    LANES = ("whole", "whole", "stream", "stream")

    def __init__(self, url: str) -> None:
        self._url = url
        self.results: list[tuple[str, float, str]] = []
        """Lane, seconds and outcome of each request."""
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(lane,)) for lane in self.LANES]

    def _run(self, lane: str) -> None:
        while not self._end.is_set():
            began = time.monotonic()
            try:
                outcome = outcome_of(named(self._url, "auto", tokens=40, stream=lane == "stream"))
            except httpx.HTTPError as error:
                outcome = f"lost: {type(error).__name__}"
            self.results.append((lane, time.monotonic() - began, outcome))
            self._end.wait(0.05)

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    @property
    def lost(self) -> list[str]:
        return [outcome for _, _, outcome in self.results if outcome.startswith("lost")]

    def __str__(self) -> str:
        outcomes: dict[str, int] = {}
        for _, _, outcome in self.results:
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
        slowest = {
            lane: round(max(seconds for name, seconds, _ in self.results if name == lane), 1)
            for lane in sorted(set(self.LANES))
        }
        median = 1000 * statistics.median(seconds for _, seconds, _ in self.results)
        counts = f"{len(self.results)} requests, {len(self.lost)} lost, {outcomes}"
        return f"{counts}; median {median:.0f} ms, slowest, s: {slowest}"


def pids(of: tuple[str, ...] = EXPERTS) -> dict[str, set[int]]:
    by_app: dict[str, set[int]] = {name: set() for name in of}
    for app, _, pid in replicas():
        if app in by_app:
            by_app[app].add(pid)
    return by_app


def wait_until(done: Callable[[], bool], condition: str) -> float:
    began = time.monotonic()
    while not done():
        if time.monotonic() - began > WITHIN_S:
            pytest.fail(f"{condition}: not within {WITHIN_S:g} s")
        time.sleep(0.25)
    return time.monotonic() - began


def test_check_compares_a_configuration_with_running_nodes(running: dict[str, Any], tmp_path: Path) -> None:
    elsewhere = json.loads(json.dumps(running))
    elsewhere["applications"][1]["args"]["pool"] = {"labels": {"pool": "mars"}}
    large = json.loads(json.dumps(running))
    large["applications"][2]["args"]["workers"] = 9

    def messages(graph: dict[str, Any]) -> list[str]:
        findings = check_file(written(graph, tmp_path), cluster=DASHBOARD, policy=False)
        return [f"{finding.key}: {finding.message}" for finding in findings if finding.is_error]

    assert messages(running) == []
    assert any("expert-arithmetic.Expert: no node of pool pool=mars" in line for line in messages(elsewhere))
    assert any("expert-words.Expert: one replica needs 9 GPU on one node" in line for line in messages(large))


def test_no_replica_strays_over_twenty_redeploys(running: dict[str, Any]) -> None:
    graph = pids(("to-router",))
    before, times = pids(), []
    for turn in range(1, REDEPLOYS + 1):
        times.append(deploy(reseeded(running, turn)))

        now = pids()
        assert strays(running) == []
        assert all(now[app] and not now[app] & before[app] for app in EXPERTS), f"turn {turn}: {now}"
        before = now
    assert pids(("to-router",)) == graph
    report(
        f"{REDEPLOYS} redeploys of all experts: 0 strays, 0 hangs; "
        f"median {statistics.median(times):.1f} s, longest {max(times):.1f} s"
    )


@pytest.mark.parametrize("way", ["kill", "vanish"])
def test_a_lost_node_loses_no_request_and_its_replica_returns(
    running: dict[str, Any], machine: Machine, way: str
) -> None:
    name = next(pool for pool in addresses(running) if pool.endswith("math"))
    deploy(running)
    await_ready(HEAD_URL)
    with Load(HEAD_URL) as load:
        time.sleep(3)
        (machine.kill if way == "kill" else machine.vanish)(name)
        time.sleep(GONE_S if way == "kill" else VANISHED_S)
    report(f"{way} {name}: {load}")

    assert len(load.results) > 20
    assert load.lost == []
    assert sum(outcome == "cut" for *_, outcome in load.results) <= Load.LANES.count("stream")
    assert any(outcome == "fallback_expert" for *_, outcome in load.results), "the load missed the node"

    with Load(HEAD_URL) as load:
        machine.join(running, name)
        took = wait_until(
            lambda: named(HEAD_URL, "arithmetic").status_code == 200, "the expert responds again"
        )
    report(f"its expert responds {took:.1f} s after a node with its pool joined; meanwhile {load}")
    assert load.lost == []
    assert strays(running) == []
    assert pids()["expert-arithmetic"]


@pytest.mark.skipif(not WITH_REDIS, reason="redis-server is not installed (Debian: the package redis-server)")
def test_the_data_plane_serves_without_the_head(running: dict[str, Any], machine: Machine) -> None:
    by_pool = addresses(running)
    pool = next(name for name in by_pool if name.endswith("ingress"))
    ingress_url = f"http://{by_pool[pool]}:{HTTP_PORT}"
    deploy(running)
    await_ready(ingress_url)
    before = pids((*EXPERTS, "to-router"))
    with Load(ingress_url) as load:
        time.sleep(3)
        machine.kill(HEAD)
        time.sleep(20)
        without_head = len(load.results)
        machine.join(running, HEAD)
        back = wait_until(control_responds, "the control plane responds")
        after = pids((*EXPERTS, "to-router"))
        took = deploy(reseeded(running, 77))
        time.sleep(3)
    report(
        f"head killed: {load}; {without_head} of them before it returned; control responds {back:.1f} s "
        f"after `ray start --head`, and a redeploy took {took:.1f} s"
    )

    assert load.lost == []
    assert without_head > 20
    assert after == before
    assert strays(running) == []
    assert not pids()["expert-arithmetic"] & before["expert-arithmetic"]


def control_responds() -> bool:
    """Whether Serve's controller reports every application again."""
    try:
        states = application_states()
    except (httpx.HTTPError, KeyError, ValueError):
        return False
    return set(states) == {*EXPERTS, "to-router"} and set(states.values()) == {"RUNNING"}


def test_real_engines_run_on_their_pools_nodes_too(running: dict[str, Any]) -> None:
    took = deploy(with_engines(running))
    await_ready(HEAD_URL)  # the ingress refreshes its experts every few seconds
    response = named(HEAD_URL, "arithmetic")
    report(f"two real vLLM engines and a simulated one of two bundles deployed in {took:.1f} s")

    assert strays(running) == []
    assert all(pids().values())
    assert response.status_code == 200
    assert "simulated" not in response.text
