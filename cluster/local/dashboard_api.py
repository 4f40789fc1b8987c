"""What a running local cluster says of itself, asked of its dashboard; knows no process and no network."""

import time
from collections.abc import Mapping
from typing import Any

import httpx

from router.errors import RouterError

NETWORK = "10.213.77"
HEAD_IP = f"{NETWORK}.1"
DASHBOARD = f"http://{HEAD_IP}:8265"
HTTP_PORT = 8000
DEPLOYED_WITHIN_S, EACH_APPLICATION_S = 240.0, 10.0
READY_WITHIN_S = 120.0
PATIENCE_S = 180.0
"""With a dashboard that answers while many replicas start on few cores."""


class ClusterNotStarted(RouterError):
    """A node, or the graph on it, did not come up; the message says what was seen last."""


def alive_nodes() -> dict[str, dict[str, Any]]:
    """Node id → its labels, address and resources; empty while nobody answers."""
    return {str(row["node_id"]): row for row in _listed("nodes") if row.get("state") == "ALIVE"}


def replicas() -> list[tuple[str, str, int]]:
    """(application, address of its node, process id) of every living replica."""
    address = {node: str(row.get("node_ip")) for node, row in alive_nodes().items()}
    found = []
    for row in _listed("actors"):
        parts = str(row.get("class_name")).split(":")
        if row.get("state") == "ALIVE" and parts[0] == "ServeReplica":
            found.append((parts[1], address.get(str(row.get("node_id")), "?"), int(row.get("pid") or 0)))
    return sorted(found)


def actor_pids(class_name: str) -> list[int]:
    """Process ids of the living actors whose class name begins so."""
    return [
        int(row["pid"])
        for row in _listed("actors")
        if row.get("state") == "ALIVE" and str(row.get("class_name")).startswith(class_name)
    ]


def running_replicas() -> dict[str, int]:
    """Application → replicas that run, of the experts."""
    return {
        name: sum(replica["state"] == "RUNNING" for replica in app["deployments"]["Expert"]["replicas"])
        for name, app in _applications().items()
        if "Expert" in app["deployments"]
    }


def application_states() -> dict[str, str]:
    """Application → its status, as Serve tells it."""
    return {name: str(app["status"]) for name, app in _applications().items()}


def deploy(config: Mapping[str, Any]) -> float:
    """Deploy and wait until every application runs; seconds that took.

    Raises:
        ClusterNotStarted: Serve refuses the configuration, or is not there in time.
    """
    started = time.monotonic()
    answer = httpx.put(f"{DASHBOARD}/api/serve/applications/", json=dict(config), timeout=PATIENCE_S)
    if answer.status_code != 200:
        raise ClusterNotStarted(f"Serve refuses the configuration: {answer.text[-500:].strip()}")
    wanted = {str(app["name"]) for app in config["applications"]}
    within_s = DEPLOYED_WITHIN_S + EACH_APPLICATION_S * len(wanted)
    states: dict[str, str] = {}
    while time.monotonic() - started < within_s:
        states = application_states()
        if states.keys() == wanted and set(states.values()) == {"RUNNING"}:
            return time.monotonic() - started
        time.sleep(0.25)
    raise ClusterNotStarted(f"not all run after {within_s:g} s: {states}")


def await_ready(url: str) -> None:
    """Wait until the door says that every part can answer.

    Raises:
        ClusterNotStarted: not within `READY_WITHIN_S`.
    """
    ends = time.monotonic() + READY_WITHIN_S
    seen = "nothing"
    while time.monotonic() < ends:
        try:
            answer = httpx.get(f"{url}/ready", timeout=10)
            if answer.status_code == 200:
                return
            seen = f"{answer.status_code}: {answer.text:.300}"
        except httpx.HTTPError as error:
            seen = type(error).__name__  # the door is still opening
        time.sleep(0.5)
    raise ClusterNotStarted(f"{url}/ready did not answer 200 within {READY_WITHIN_S:g} s; last {seen}")


def _applications() -> dict[str, Any]:
    answer = httpx.get(f"{DASHBOARD}/api/serve/applications/", timeout=PATIENCE_S)
    answer.raise_for_status()
    return dict(answer.json()["applications"])


def _listed(what: str) -> list[dict[str, Any]]:
    try:
        answer = httpx.get(f"{DASHBOARD}/api/v0/{what}", params={"detail": "1", "limit": "10000"}, timeout=20)
        rows: list[dict[str, Any]] = answer.json()["data"]["result"]["result"]
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return []
    return rows
