"""Resources that each deployment of a serve_config.yaml needs, and the replicas that a set of nodes holds.

Pure functions over plain values; reads no cluster, knows no manifest. `check`, `render` and the local
cluster all use them, so that they cannot disagree.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from deployments.config import REQUEST_TIMEOUT_S, AppArgs
from deployments.engine_settings import ExpertArgs, PoolArgs
from deployments.placement import accelerator_hint, worker_bundle
from deployments.simulated.args import SimulatedArgs
from deployments.simulated.placement import simulated_bundles

BUILD_APP, BUILD_EXPERT, BUILD_SIMULATED = (
    f"deployments.app:build_{what}" for what in ("app", "expert", "simulated")
)
ROUNDING = 1e-6
"""Ray counts resources in ten-thousandths; a smaller difference is no shortage."""
SERVES_GRACE_S = 20.0
"""Serve's own graceful_shutdown_timeout_s, which the router has."""
AUTO_REPLICAS = (1, 100)
"""Serve's bounds for `num_replicas: auto`."""

Resources = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class ReplicaDemand:
    """What the replicas of one deployment need from nodes."""

    app: str
    deployment: str
    labels: Mapping[str, str]
    bundles: tuple[Resources, ...]
    """What one replica reserves, worker by worker."""
    low: int
    high: int
    stages: int = 1
    """Pipeline stages with an equal number of bundles; only a stage's bundles must be on one node."""
    most_per_node: int | None = None
    grace_s: float = SERVES_GRACE_S
    """Seconds that a replica may take to finish its requests."""

    @property
    def key(self) -> str:
        """Application and deployment, as findings name them."""
        return f"{self.app}.{self.deployment}"

    @property
    def pieces(self) -> tuple[dict[str, float], ...]:
        """The indivisible parts of one replica: the sum of each pipeline stage's bundles."""
        size = len(self.bundles) // self.stages
        return tuple(added(self.bundles[i * size : (i + 1) * size]) for i in range(self.stages))

    @property
    def gpus(self) -> float:
        """GPUs of one replica."""
        return added(self.bundles).get("GPU", 0.0)


@dataclass(frozen=True, slots=True)
class Nodes:
    """Equal nodes: one node of a running cluster, or a worker group."""

    name: str
    labels: Mapping[str, str]
    resources: Resources
    low: int = 1
    high: int = 1


@dataclass(slots=True)
class NodeState:
    """Free resources of one node while replicas are packed onto it."""

    nodes: Nodes
    free: dict[str, float]
    gpus: list[float]
    """Free share of each GPU."""
    replicas: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, nodes: Nodes) -> "NodeState":
        """Return the state of an empty node."""
        count = nodes.resources.get("GPU", 0.0)
        gpus = [1.0] * int(count + ROUNDING)
        return cls(nodes, dict(nodes.resources), gpus or [count])

    def gpu_shares(self, amount: float) -> dict[int, float] | None:
        """Choose GPUs for an amount, and the share of each: entirely free ones, and one for a fraction.

        Returns:
            GPU → share, or `None` if too little is free.
        """
        whole = int(amount + ROUNDING)
        part = amount - whole
        unused = [i for i, share in enumerate(self.gpus) if share + ROUNDING >= 1][:whole]
        if len(unused) < whole:
            return None
        shares = dict.fromkeys(unused, 1.0)
        if part > ROUNDING:
            fitting = [i for i, share in enumerate(self.gpus) if i not in shares and share + ROUNDING >= part]
            if not fitting:
                return None
            shares[min(fitting, key=lambda i: self.gpus[i])] = part
        return shares

    def reserve(self, piece: Resources, shares: Mapping[int, float], *, sign: int = 1) -> None:
        """Subtract a piece from the free resources; add it back with a sign of -1."""
        for name, amount in piece.items():
            self.free[name] = self.free.get(name, 0.0) - sign * amount
        for gpu, share in shares.items():
            self.gpus[gpu] -= sign * share


def added(bundles: Sequence[Resources]) -> dict[str, float]:
    """Return the sum of resource maps."""
    total: dict[str, float] = {}
    for bundle in bundles:
        for name, amount in bundle.items():
            total[name] = total.get(name, 0.0) + amount
    return total


def demands(config: Mapping[str, Any]) -> list[ReplicaDemand]:
    """Return what every deployment needs, in the file's order; applications of others are skipped.

    Raises:
        pydantic.ValidationError: the `args` of an application are wrong; `check` describes the error.
    """
    return [demand for app in config.get("applications") or [] for demand in _of_application(app)]


def _of_application(app: Mapping[str, Any]) -> Iterator[ReplicaDemand]:
    name, data, path = str(app.get("name")), app.get("args") or {}, app.get("import_path")
    scale = {str(d.get("name")): d for d in app.get("deployments") or [] if isinstance(d, dict)}
    if path == BUILD_APP:
        args = AppArgs.model_validate(data)
        for deployment, part, gpus, grace_s in (
            ("Ingress", args.ingress, 0.0, args.ingress.request_timeout_s),
            ("Router", args.router, args.router.num_gpus, SERVES_GRACE_S),
        ):
            bundle = {"CPU": part.num_cpus, "GPU": gpus, **_resources(part.pool)}
            needed = {k: v for k, v in bundle.items() if v}
            demand = _demand(name, deployment, part.pool, (needed,), scale, grace_s)
            yield replace(demand, most_per_node=part.max_replicas_per_node)
    elif path == BUILD_EXPERT:
        expert = ExpertArgs.model_validate(data)
        bundle = worker_bundle(expert) | accelerator_hint(expert)
        demand = _demand(name, "Expert", expert.pool, (bundle,) * expert.workers, scale)
        yield replace(demand, stages=int(expert.engine.get("pipeline_parallel_size", 1)))
    elif path == BUILD_SIMULATED:
        simulated = SimulatedArgs.model_validate(data)
        yield _demand(name, "Expert", simulated.pool, tuple(simulated_bundles(simulated)), scale)


def _resources(pool: PoolArgs | None) -> dict[str, float]:
    return dict((pool.resources if pool else None) or {})


def _demand(
    app: str,
    deployment: str,
    pool: PoolArgs | None,
    bundles: tuple[Resources, ...],
    scale: Mapping[str, Mapping[str, Any]],
    default_grace_s: float = REQUEST_TIMEOUT_S,
) -> ReplicaDemand:
    settings = scale.get(deployment, {})
    low, high = _bounds(settings)
    labels = dict((pool.labels if pool else None) or {})
    grace = float(settings.get("graceful_shutdown_timeout_s", default_grace_s))
    return ReplicaDemand(app, deployment, labels, bundles, low, high, grace_s=grace)


def _bounds(settings: Mapping[str, Any]) -> tuple[int, int]:
    """Return the minimum and maximum of a deployment's replicas."""
    autoscaling = settings.get("autoscaling_config")
    fixed = settings.get("num_replicas")
    if isinstance(autoscaling, dict):
        low = int(autoscaling.get("min_replicas", 1))
        return low, max(low, int(autoscaling.get("max_replicas", 1)))
    if fixed == "auto":
        return AUTO_REPLICAS
    return (int(fixed), int(fixed)) if isinstance(fixed, int) else (1, 1)


def matches(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether labels match a selector, by Ray's operators: `v`, `!v`, `in(a,b)`, `!in(a,b)`."""
    return all(_matches(condition.strip(), labels.get(key)) for key, condition in selector.items())


def _matches(condition: str, label: str | None) -> bool:
    negated = condition.startswith("!")
    body = condition.removeprefix("!")
    group = re.fullmatch(r"in\((.*)\)", body)
    values = [v.strip() for v in group.group(1).split(",")] if group else [body]
    return (label in values) != negated


def holds(resources: Resources, piece: Resources) -> bool:
    """Whether a node with these resources can hold the piece."""
    return all(resources.get(name, 0.0) + ROUNDING >= amount for name, amount in piece.items() if amount > 0)


def eligible(demand: ReplicaDemand, nodes: Sequence[Nodes]) -> list[Nodes]:
    """Return the nodes with the pool's labels and every custom resource that it needs."""
    custom = {name for piece in demand.pieces for name in piece} - {"CPU", "GPU", "memory"}
    return [n for n in nodes if matches(demand.labels, n.labels) and custom <= n.resources.keys()]


def unplaced(
    counts: Sequence[tuple[ReplicaDemand, int]], nodes: Sequence[Nodes], *, most: bool
) -> dict[str, int]:
    """Return the replicas that fit on no node, by `ReplicaDemand.key`, with the largest placed first.

    Args:
        counts: each deployment with its number of replicas.
        nodes: the nodes of the cluster.
        most: count a group's `high` nodes, not its `low`.
    """
    pieces = sum(len(demand.pieces) * count for demand, count in counts)
    states = [NodeState.of(n) for n in nodes for _ in range(min(n.high if most else n.low, max(pieces, 1)))]
    missing: dict[str, int] = {}
    for demand, count in sorted(counts, key=lambda pair: _weight(pair[0]), reverse=True):
        able = {id(n) for n in eligible(demand, nodes)}
        # The tightest fit first: a plain deployment must not take the GPU node's processors.
        fitting = sorted((s for s in states if id(s.nodes) in able), key=lambda s: s.free.get("GPU", 0.0))
        placed = 0
        while placed < count and _place(demand, fitting):
            placed += 1
        if placed < count:
            missing[demand.key] = count - placed
    return missing


def _weight(demand: ReplicaDemand) -> tuple[float, float]:
    total = added(demand.bundles)
    return total.get("GPU", 0.0), total.get("CPU", 0.0)


def _place(demand: ReplicaDemand, states: Sequence[NodeState]) -> bool:
    """Assign one replica to nodes, or change nothing."""
    reserved: list[tuple[NodeState, Resources, dict[int, float]]] = []
    for piece in demand.pieces:
        for state in states:
            if demand.most_per_node is not None and state.replicas.get(demand.key, 0) >= demand.most_per_node:
                continue
            shares = state.gpu_shares(piece.get("GPU", 0.0)) if holds(state.free, piece) else None
            if shares is not None:
                state.reserve(piece, shares)
                reserved.append((state, piece, shares))
                break
        else:
            for state, earlier, shares in reserved:
                state.reserve(earlier, shares, sign=-1)
            return False
    for state in {id(s): s for s, *_ in reserved}.values():
        state.replicas[demand.key] = state.replicas.get(demand.key, 0) + 1
    return True
