"""Whether the replicas of a serve_config.yaml fit on nodes, and the nodes of a running cluster.

Reads the nodes from Ray's dashboard; changes nothing.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from cluster.check.finding import Finding
from cluster.ingress import user_config
from cluster.packing import Nodes, ReplicaDemand, eligible, holds, unplaced
from router.errors import RouterError

DASHBOARD = "http://127.0.0.1:8265"
NODE_LIMIT = 10_000
"""Above the number that Ray's state API lists by default."""


class ClusterUnreachable(RouterError):
    """There is no dashboard of Ray at the cluster's address."""


def check_fit(
    demands: Sequence[ReplicaDemand], nodes: Sequence[Nodes], *, where: str, more_may_join: bool = False
) -> Iterator[Finding]:
    """Find the deployments whose replicas do not fit on the nodes.

    Args:
        demands: the needs of every deployment.
        nodes: single nodes or worker groups.
        where: the source of the nodes, for the messages.
        more_may_join: more nodes may join later, so a pool scaled to zero may have none now.
    """
    placeable: list[ReplicaDemand] = []
    for demand in demands:
        reason = _impossible(demand, nodes)
        if reason is None:
            placeable.append(demand)
        elif demand.high > 0:
            may_come = more_may_join and demand.low == 0 and not eligible(demand, nodes)
            yield Finding("warning" if may_come else "error", demand.key, f"{reason} ({where})")
    least = unplaced([(demand, demand.low) for demand in placeable], nodes, most=True)
    for key, missing in least.items():
        demand = next(d for d in placeable if d.key == key)
        message = (
            f"{missing} of min_replicas {demand.low} do not fit beside the others: {_needs(demand)} each"
        )
        yield Finding("error", key, f"{message} ({where})")
    for key, missing in unplaced([(demand, demand.high) for demand in placeable], nodes, most=True).items():
        if key in least:
            continue
        demand = next(d for d in placeable if d.key == key)
        message = (
            f"only {demand.high - missing} of max_replicas {demand.high} fit when all are at their maximum: "
            f"{_needs(demand)} each; raise {_growth(demand, nodes)} or lower max_replicas"
        )
        grows = any(group.high > 1 for group in nodes)
        yield Finding("error" if grows else "warning", key, f"{message} ({where})")


def check_counts(
    config: Mapping[str, Any], demands: Sequence[ReplicaDemand], nodes: Sequence[Nodes], *, where: str
) -> Iterator[Finding]:
    """Find counts of keys that a change of machine would lose.

    The ledger runs on one node of the ingress, and restarts on another where that one is lost.
    """
    ingress = next((demand for demand in demands if demand.deployment == "Ingress"), None)
    keys = user_config(config).get("keys")
    if ingress is None or not isinstance(keys, Mapping) or keys.get("counts") is not None:
        return
    able = eligible(ingress, nodes)
    machines = sum(node.high for node in able)
    if machines > 1:
        message = (
            f"is missing, and {machines} nodes can run the ingress: beside keys.file, the counts are on one "
            "node's disk, and all budgets begin at zero without it; name a file on storage that they share"
        )
        yield Finding("warning", f"{ingress.key}.user_config.keys.counts", f"{message} ({where})")


def _impossible(demand: ReplicaDemand, nodes: Sequence[Nodes]) -> str | None:
    """Return why not even one replica can run, or `None`."""
    able = eligible(demand, nodes)
    if not able:
        return f"no node of pool {_pool(demand)}: the nodes have {_offers(demand, nodes)}"
    for piece in demand.pieces:
        if any(holds(node.resources, piece) for node in able):
            continue
        for name, amount in piece.items():
            largest = max(node.resources.get(name, 0.0) for node in able)
            if largest < amount:
                return (
                    f"one replica needs {amount:g} {name} on one node, "
                    f"the largest node of pool {_pool(demand)} has {largest:g}"
                )
        return f"no single node of pool {_pool(demand)} has {_amounts(piece)} together"
    return None


def _pool(demand: ReplicaDemand) -> str:
    custom = {n for b in demand.bundles for n in b} - {"CPU", "GPU", "memory"}
    names = [f"{key}={value}" for key, value in demand.labels.items()] + sorted(custom)
    return ", ".join(names) or "any"


def _offers(demand: ReplicaDemand, nodes: Sequence[Nodes]) -> str:
    if demand.labels:
        present = {f"{key}={n.labels[key]}" for n in nodes for key in demand.labels if key in n.labels}
        return ", ".join(sorted(present)) or f"no label {', '.join(demand.labels)}"
    custom = {
        name
        for n in nodes
        for name in n.resources
        if name not in {"CPU", "GPU", "memory", "object_store_memory"} and not name.startswith("node:")
    }
    return ", ".join(sorted(custom)) or "no custom resource"


def _needs(demand: ReplicaDemand) -> str:
    return " + ".join(_amounts(piece) for piece in demand.pieces)


def _amounts(piece: Mapping[str, float]) -> str:
    return ", ".join(f"{amount:g} {name}" for name, amount in piece.items()) or "nothing"


def _growth(demand: ReplicaDemand, nodes: Sequence[Nodes]) -> str:
    limits = ", ".join(f"{n.name}.maxReplicas (now {n.high})" for n in eligible(demand, nodes) if n.high > 1)
    return limits or "the number of nodes"


def cluster_nodes(address: str, *, client: httpx.Client | None = None) -> list[Nodes]:
    """Return the living nodes of a running Ray cluster, as its dashboard lists them.

    Raises:
        ClusterUnreachable: there is no response, or not one of Ray's dashboard.
    """
    token = _token()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    url = f"{address.rstrip('/')}/api/v0/nodes"
    try:
        with client or httpx.Client(timeout=15) as session:
            response = session.get(url, params={"detail": "1", "limit": str(NODE_LIMIT)}, headers=headers)
        response.raise_for_status()
        rows = response.json()["data"]["result"]["result"]
    except httpx.HTTPError as error:
        raise ClusterUnreachable(f"no Ray dashboard at {address}: {error}; is Ray started there?") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ClusterUnreachable(f"the response of {address} is not one of Ray's dashboard") from error
    return [
        Nodes(str(row.get("node_name")), dict(row.get("labels") or {}), dict(row["resources_total"]))
        for row in rows
        if row.get("state") == "ALIVE"
    ]


def _token() -> str | None:
    """Return Ray's token from where Ray itself looks for it, in the same order, or `None`."""
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    try:
        return (Path(named) if named else Path.home() / ".ray" / "auth_token").read_text(
            "utf-8"
        ).strip() or None
    except OSError:
        return None
