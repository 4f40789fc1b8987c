"""State of a running local cluster, as its dashboard reports it; knows no process and no network."""

import time
from collections.abc import Mapping
from typing import Any

import httpx

from cluster.local.network import HEAD_IP, ClusterNotStarted
from cluster.local.readiness import wait_until_ready

DASHBOARD = f"http://{HEAD_IP}:8265"
HTTP_PORT = 8000
DEPLOYED_WITHIN_S, EACH_APPLICATION_S = 240.0, 10.0
READY_WITHIN_S = 120.0
DASHBOARD_TIMEOUT_S = 180.0
"""Long: the dashboard responds slowly while many replicas start on few cores."""


def alive_nodes() -> dict[str, dict[str, Any]]:
    """Return labels, address and resources of each living node, by node id; empty without a response."""
    return {str(row["node_id"]): row for row in _rows("nodes") if row.get("state") == "ALIVE"}


def replicas() -> list[tuple[str, str, int]]:
    """Return (application, address of its node, process id) of every living replica."""
    address = {node: str(row.get("node_ip")) for node, row in alive_nodes().items()}
    rows = []
    for row in _rows("actors"):
        parts = str(row.get("class_name")).split(":")
        if row.get("state") == "ALIVE" and parts[0] == "ServeReplica":
            rows.append((parts[1], address.get(str(row.get("node_id")), "?"), int(row.get("pid") or 0)))
    return sorted(rows)


def actor_pids(class_name: str) -> list[int]:
    """Return the process ids of the living actors whose class name has this prefix."""
    return [
        int(row["pid"])
        for row in _rows("actors")
        if row.get("state") == "ALIVE" and str(row.get("class_name")).startswith(class_name)
    ]


def running_replicas() -> dict[str, int]:
    """Return the number of running replicas of each expert's application."""
    return {
        name: sum(replica["state"] == "RUNNING" for replica in app["deployments"]["Expert"]["replicas"])
        for name, app in _applications().items()
        if "Expert" in app["deployments"]
    }


def application_states() -> dict[str, str]:
    """Return the status of each application, as Serve reports it."""
    return {name: str(app["status"]) for name, app in _applications().items()}


def deploy(config: Mapping[str, Any]) -> float:
    """Deploy, wait until every application runs, and return the seconds that took.

    Raises:
        ClusterNotStarted: Serve rejects the configuration, or an application does not run in time.
    """
    started = time.monotonic()
    url = f"{DASHBOARD}/api/serve/applications/"
    response = httpx.put(url, json=dict(config), timeout=DASHBOARD_TIMEOUT_S)
    if response.status_code != 200:
        raise ClusterNotStarted(f"Serve rejects the configuration: {response.text[-500:].strip()}")
    names = {str(app["name"]) for app in config["applications"]}
    within_s = DEPLOYED_WITHIN_S + EACH_APPLICATION_S * len(names)
    states: dict[str, str] = {}
    while time.monotonic() - started < within_s:
        states = application_states()
        if states.keys() == names and set(states.values()) == {"RUNNING"}:
            return time.monotonic() - started
        time.sleep(0.25)
    raise ClusterNotStarted(f"not every application runs after {within_s:g} s: {states}")


def await_ready(url: str) -> None:
    """Wait until the ingress reports every part as ready.

    Raises:
        ClusterNotStarted: not within `READY_WITHIN_S`.
    """
    states = ["no response"]
    if not wait_until_ready(url, lambda: True, states.append, within_s=READY_WITHIN_S):
        raise ClusterNotStarted(f"{url} was not ready within {READY_WITHIN_S:g} s; last: {states[-1]}")


def _applications() -> dict[str, Any]:
    response = httpx.get(f"{DASHBOARD}/api/serve/applications/", timeout=DASHBOARD_TIMEOUT_S)
    response.raise_for_status()
    return dict(response.json()["applications"])


def _rows(kind: str) -> list[dict[str, Any]]:
    try:
        response = httpx.get(
            f"{DASHBOARD}/api/v0/{kind}", params={"detail": "1", "limit": "10000"}, timeout=20
        )
        rows: list[dict[str, Any]] = response.json()["data"]["result"]["result"]
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return []
    return rows
