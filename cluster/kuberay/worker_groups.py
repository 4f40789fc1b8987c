"""Worker groups from pools: the pods, their size, and their minimum and maximum number.

Pure; knows nothing of Kubernetes beyond numbers and names.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cluster.kuberay.settings import BadRenderSettings, PodSettings, RenderSettings
from cluster.packing import Nodes, ReplicaDemand, added, eligible, unplaced

CPUS_PER_CPU_POD = 4.0
MEMORY_GIB_PER_CPU_POD = 16.0
CPUS_PER_GPU = 8.0
MEMORY_GIB_PER_GPU = 64.0
"""For an engine's host side: its processes, pinned buffers and the weights while they load."""
DECLARED = 1000.0
"""A custom resource's amount on each pod; a replica takes thousandths of one, so it never limits."""
MOST_PODS = 4096
GROUP_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
"""A pod's label holds it, which Kubernetes limits to 63 characters."""
BUILT_IN = ("CPU", "GPU", "memory")


@dataclass(frozen=True, slots=True)
class WorkerGroup:
    """The pods of one pool."""

    name: str
    labels: Mapping[str, str]
    custom: Mapping[str, float]
    cpus: float
    memory_gib: float
    gpus: int
    low: int
    high: int
    grace_s: float
    most_per_node: int | None
    pods: PodSettings
    parts: frozenset[str]
    """Deployments whose replicas may run there: a deployment without a pool may run in any group."""


def worker_groups(demands: Sequence[ReplicaDemand], settings: RenderSettings) -> list[WorkerGroup]:
    """Return one worker group per pool; deployments without a pool share a CPU or a GPU group.

    Raises:
        BadRenderSettings: the settings name a group that the configuration does not have, or pods
            too small for a replica.
    """
    pools: dict[str, list[ReplicaDemand]] = {}
    for demand in demands:
        pools.setdefault(pool_name(demand), []).append(demand)
    if unknown := sorted(settings.pools.keys() - pools.keys()):
        raise BadRenderSettings(
            f"pools.{unknown[0]} is no pool of the configuration; there are {', '.join(sorted(pools))}"
        )
    return [
        _group(name, members, settings.pools.get(name, PodSettings()), demands)
        for name, members in pools.items()
    ]


def pool_name(demand: ReplicaDemand) -> str:
    """Return a pool's name, valid in Kubernetes: its label `pool`, or its labels or resources joined."""
    custom = sorted(_custom(demand))
    if not demand.labels and not custom:
        return "gpu" if demand.gpus else "cpu"
    name = demand.labels.get("pool") or "-".join([*demand.labels.values(), *custom])
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _custom(demand: ReplicaDemand) -> set[str]:
    return {name for bundle in demand.bundles for name in bundle} - set(BUILT_IN)


def _group(
    name: str, members: Sequence[ReplicaDemand], pods: PodSettings, every: Sequence[ReplicaDemand]
) -> WorkerGroup:
    labels = members[0].labels
    if not GROUP_NAME.fullmatch(name):
        origin = ", ".join([*(f"{key}={value}" for key, value in labels.items()), *_custom(members[0])])
        raise BadRenderSettings(
            f"the pool of {members[0].key} ({origin}) has no name for Kubernetes: its label `pool`, or "
            "all its labels or resources joined, must have 1 to 63 letters, digits or dashes; "
            f"{name!r} has {len(name)}"
        )
    if any(member.labels != labels for member in members):
        raise BadRenderSettings(f"two pools get the name {name}: give them different `pool` labels")
    if operators := [value for value in labels.values() if re.search(r"[!(),]", value)]:
        raise BadRenderSettings(
            f"pool {name} is selected by {operators[0]!r}: render takes plain label values"
        )
    pieces = [piece for member in members for piece in member.pieces]
    gpus = pods.gpus or math.ceil(max(piece.get("GPU", 0.0) for piece in pieces))
    needed = added([_processors(member, gpus) for member in members]).get("CPU", 0.0)
    least_cpus = CPUS_PER_GPU * gpus if gpus else max(CPUS_PER_CPU_POD, math.ceil(needed))
    cpus = pods.cpus or max(least_cpus, *(piece.get("CPU", 0.0) for piece in pieces))
    memory = pods.memory_gib or (MEMORY_GIB_PER_GPU * gpus if gpus else MEMORY_GIB_PER_CPU_POD)
    custom = {
        key: 1.0 if key.startswith("accelerator_type:") else DECLARED
        for member in members
        for key in sorted(_custom(member))
    }
    node = {"CPU": cpus, "GPU": float(gpus), **custom}
    low = _pods(name, [(member, member.low) for member in members], labels, node)
    high = _pods(name, [(member, member.high) for member in members], labels, node)
    spread = [member.most_per_node for member in members if member.most_per_node is not None]
    return WorkerGroup(
        name=name,
        labels=labels,
        custom=custom,
        cpus=cpus,
        memory_gib=memory,
        gpus=gpus,
        low=low,
        high=max(high, 1) + pods.spare,
        grace_s=max(member.grace_s for member in members),
        most_per_node=min(spread) if spread else None,
        pods=pods,
        parts=frozenset(
            demand.deployment for demand in every if eligible(demand, [Nodes(name, labels, node)])
        ),
    )


def _processors(member: ReplicaDemand, gpus: int) -> dict[str, float]:
    """Return the CPUs that a CPU pod needs for one replica of each of its deployments."""
    return {} if gpus else {"CPU": added(member.bundles).get("CPU", 0.0)}


def _pods(
    name: str,
    counts: Sequence[tuple[ReplicaDemand, int]],
    labels: Mapping[str, str],
    node: Mapping[str, float],
) -> int:
    """Return the smallest number of pods that hold the replicas."""
    if not any(count for _, count in counts):
        return 0
    low, high = 1, 1
    while missing := unplaced(counts, [Nodes(name, labels, node, 0, high)], most=True):
        if high >= MOST_PODS:
            raise BadRenderSettings(
                f"pods of pool {name} are too small for {', '.join(sorted(missing))}: "
                f"give pools.{name}.cpus or gpus"
            )
        low, high = high + 1, high * 2
    while low < high:
        middle = (low + high) // 2
        if unplaced(counts, [Nodes(name, labels, node, 0, middle)], most=True):
            low = middle + 1
        else:
            high = middle
    return low
