"""Hold a serve_config.yaml against nodes: a running cluster's, or a RayService manifest's worker groups.

`--cluster` asks Ray's dashboard which nodes there are; `--kuberay` reads a file. Neither changes anything.
"""

import os
from collections.abc import Iterator, Mapping, Sequence

import httpx

from cluster.check.finding import Finding
from cluster.packing import Nodes, ReplicaDemand, eligible, holds, unplaced
from router.errors import RouterError

DASHBOARD = "http://127.0.0.1:8265"
NODE_LIMIT = 10_000
"""More nodes than Ray's state API lists at once."""


class ClusterUnreachable(RouterError):
    """The dashboard of the cluster did not answer as Ray's does."""


def check_fit(
    asks: Sequence[ReplicaDemand], nodes: Sequence[Nodes], *, where: str, more_may_join: bool = False
) -> Iterator[Finding]:
    """What of the deployments finds no place on the nodes.

    Args:
        asks: every deployment's needs.
        nodes: single nodes or worker groups.
        where: whose nodes they are, for the messages.
        more_may_join: the nodes are those of a moment; a pool that may sleep may have none.
    """
    placeable: list[ReplicaDemand] = []
    for ask in asks:
        told = _impossible(ask, nodes)
        if told is None:
            placeable.append(ask)
        elif ask.high > 0:
            asleep = more_may_join and ask.low == 0 and not eligible(ask, nodes)
            yield Finding("warning" if asleep else "error", ask.key, f"{told} ({where})")
    least = unplaced([(ask, ask.low) for ask in placeable], nodes, most=True)
    for key, missing in least.items():
        ask = next(a for a in placeable if a.key == key)
        told = f"{missing} of min_replicas {ask.low} find no room beside the others: {_wants(ask)} each"
        yield Finding("error", key, f"{told} ({where})")
    for key, missing in unplaced([(ask, ask.high) for ask in placeable], nodes, most=True).items():
        if key in least:
            continue
        ask = next(a for a in placeable if a.key == key)
        told = (
            f"only {ask.high - missing} of max_replicas {ask.high} find room when all are at their maximum: "
            f"{_wants(ask)} each; raise {_growth(ask, nodes)} or lower max_replicas"
        )
        grows = any(group.high > 1 for group in nodes)
        yield Finding("error" if grows else "warning", key, f"{told} ({where})")


def _impossible(ask: ReplicaDemand, nodes: Sequence[Nodes]) -> str | None:
    """Why not even one replica can run, or `None`."""
    able = eligible(ask, nodes)
    if not able:
        return f"no node of pool {_pool(ask)}: the nodes carry {_offers(ask, nodes)}"
    for piece in ask.pieces:
        if any(holds(node.resources, piece) for node in able):
            continue
        for name, amount in piece.items():
            largest = max(node.resources.get(name, 0.0) for node in able)
            if largest < amount:
                return (
                    f"one replica needs {amount:g} {name} on one node, "
                    f"the largest node of pool {_pool(ask)} has {largest:g}"
                )
        return f"no single node of pool {_pool(ask)} has {_amounts(piece)} together"
    return None


def _pool(ask: ReplicaDemand) -> str:
    custom = {n for b in ask.bundles for n in b} - {"CPU", "GPU", "memory"}
    named = [f"{key}={value}" for key, value in ask.labels.items()] + sorted(custom)
    return ", ".join(named) or "any"


def _offers(ask: ReplicaDemand, nodes: Sequence[Nodes]) -> str:
    if ask.labels:
        seen = {f"{key}={n.labels[key]}" for n in nodes for key in ask.labels if key in n.labels}
        return ", ".join(sorted(seen)) or f"no label {', '.join(ask.labels)}"
    custom = {
        name
        for n in nodes
        for name in n.resources
        if name not in {"CPU", "GPU", "memory", "object_store_memory"} and not name.startswith("node:")
    }
    return ", ".join(sorted(custom)) or "no custom resource"


def _wants(ask: ReplicaDemand) -> str:
    return " + ".join(_amounts(piece) for piece in ask.pieces)


def _amounts(piece: Mapping[str, float]) -> str:
    return ", ".join(f"{amount:g} {name}" for name, amount in piece.items()) or "nothing"


def _growth(ask: ReplicaDemand, nodes: Sequence[Nodes]) -> str:
    named = ", ".join(f"{n.name}.maxReplicas (now {n.high})" for n in eligible(ask, nodes) if n.high > 1)
    return named or "the number of nodes"


def cluster_nodes(address: str, *, client: httpx.Client | None = None) -> list[Nodes]:
    """The living nodes of a running Ray cluster, asked of its dashboard.

    Raises:
        ClusterUnreachable: nobody answers there, or not as Ray's dashboard does.
    """
    token = os.environ.get("RAY_AUTH_TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    url = f"{address.rstrip('/')}/api/v0/nodes"
    try:
        with client or httpx.Client(timeout=15) as asking:
            answer = asking.get(url, params={"detail": "1", "limit": str(NODE_LIMIT)}, headers=headers)
        answer.raise_for_status()
        rows = answer.json()["data"]["result"]["result"]
    except httpx.HTTPError as error:
        raise ClusterUnreachable(f"no Ray dashboard at {address}: {error}; is Ray started there?") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ClusterUnreachable(f"{address} does not answer as Ray's dashboard does") from error
    return [
        Nodes(str(row.get("node_name")), dict(row.get("labels") or {}), dict(row["resources_total"]))
        for row in rows
        if row.get("state") == "ALIVE"
    ]
