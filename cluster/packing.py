"""What each deployment of a serve_config.yaml asks of nodes, and how much of it a set of nodes holds.

Pure functions over plain values; reads no cluster, knows no manifest. `check`, `render` and the local
cluster all ask here, so that they cannot disagree.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from deployments.config import AppArgs, ExpertArgs, PoolArgs
from deployments.placement import simulated_bundles, worker_bundle
from deployments.simulated.args import SimulatedArgs

BUILD_APP, BUILD_EXPERT, BUILD_SIMULATED = (
    f"deployments.app:build_{what}" for what in ("app", "expert", "simulated")
)
ROUNDING = 1e-6
"""Ray counts resources in ten-thousandths; less than this is no shortage."""
ACCELERATOR_SHARE = 0.001
"""What Ray adds to a bundle that names an accelerator type."""
DEFAULT_GRACE_S = 20.0
"""Serve's own graceful_shutdown_timeout_s."""

Resources = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class ReplicaDemand:
    """What the replicas of one deployment ask of nodes."""

    app: str
    deployment: str
    labels: Mapping[str, str]
    bundles: tuple[Resources, ...]
    """What one replica reserves, worker by worker."""
    low: int
    high: int
    stages: int = 1
    """Pipeline stages, each of as many bundles; only a stage's bundles must lie on one node."""
    most_per_node: int | None = None
    grace_s: float = DEFAULT_GRACE_S
    """Seconds that a replica may take to finish its requests."""

    @property
    def key(self) -> str:
        return f"{self.app}.{self.deployment}"

    @property
    def pieces(self) -> tuple[dict[str, float], ...]:
        """The indivisible parts of one replica: a sum for each pipeline stage."""
        size = len(self.bundles) // self.stages
        return tuple(added(self.bundles[i * size : (i + 1) * size]) for i in range(self.stages))

    @property
    def gpus(self) -> float:
        """GPUs of one replica."""
        return added(self.bundles).get("GPU", 0.0)


@dataclass(frozen=True, slots=True)
class Nodes:
    """Nodes that are alike: one node of a running cluster, or a worker group."""

    name: str
    labels: Mapping[str, str]
    resources: Resources
    low: int = 1
    high: int = 1


@dataclass(slots=True)
class NodeState:
    """What is left on one node while replicas are packed onto it."""

    nodes: Nodes
    left: dict[str, float]
    gpus: list[float]
    """What is left of each GPU."""
    replicas: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, nodes: Nodes) -> "NodeState":
        """An empty node."""
        count = nodes.resources.get("GPU", 0.0)
        gpus = [1.0] * int(count + ROUNDING)
        return cls(nodes, dict(nodes.resources), gpus or [count])

    def seats(self, amount: float) -> dict[int, float] | None:
        """GPUs that would carry so much, with each one's share: whole ones are free, a fraction is of one.

        `None` where there are too few.
        """
        whole = int(amount + ROUNDING)
        part = amount - whole
        free = [i for i, left in enumerate(self.gpus) if left + ROUNDING >= 1][:whole]
        if len(free) < whole:
            return None
        seats = dict.fromkeys(free, 1.0)
        if part > ROUNDING:
            fitting = [i for i, left in enumerate(self.gpus) if i not in seats and left + ROUNDING >= part]
            if not fitting:
                return None
            seats[min(fitting, key=lambda i: self.gpus[i])] = part
        return seats


def added(bundles: Sequence[Resources]) -> dict[str, float]:
    """The sum of resource maps."""
    total: dict[str, float] = {}
    for bundle in bundles:
        for name, amount in bundle.items():
            total[name] = total.get(name, 0.0) + amount
    return total


def asks(config: Mapping[str, Any]) -> list[ReplicaDemand]:
    """Every deployment's needs, in the file's order; applications that are not ours are passed over.

    Raises:
        pydantic.ValidationError: the `args` of one of our applications are wrong; `check` words it.
    """
    return [ask for app in config.get("applications") or [] for ask in _of_application(app)]


def _of_application(app: Mapping[str, Any]) -> Iterator[ReplicaDemand]:
    name, data, path = str(app.get("name")), app.get("args") or {}, app.get("import_path")
    scale = {str(d.get("name")): d for d in app.get("deployments") or [] if isinstance(d, dict)}
    if path == BUILD_APP:
        args = AppArgs.model_validate(data)
        for deployment, part, gpus in (
            ("Ingress", args.ingress, 0.0),
            ("Router", args.router, args.router.num_gpus),
        ):
            bundle = {"CPU": part.num_cpus, "GPU": gpus, **_resources(part.pool)}
            ask = _ask(name, deployment, part.pool, ({k: v for k, v in bundle.items() if v},), scale)
            yield replace(ask, most_per_node=part.max_replicas_per_node)
    elif path == BUILD_EXPERT:
        expert = ExpertArgs.model_validate(data)
        bundle = worker_bundle(expert)
        if expert.accelerator not in {"cpu", "gpu"}:
            bundle[f"accelerator_type:{expert.accelerator}"] = ACCELERATOR_SHARE
        ask = _ask(name, "Expert", expert.pool, (bundle,) * expert.workers, scale)
        yield replace(ask, stages=int(expert.engine.get("pipeline_parallel_size", 1)))
    elif path == BUILD_SIMULATED:
        simulated = SimulatedArgs.model_validate(data)
        yield _ask(name, "Expert", simulated.pool, tuple(simulated_bundles(simulated)), scale)


def _resources(pool: PoolArgs | None) -> dict[str, float]:
    return dict((pool.resources if pool else None) or {})


def _ask(
    app: str,
    deployment: str,
    pool: PoolArgs | None,
    bundles: tuple[Resources, ...],
    scale: Mapping[str, Mapping[str, Any]],
) -> ReplicaDemand:
    settings = scale.get(deployment, {})
    low, high = _bounds(settings)
    labels = dict((pool.labels if pool else None) or {})
    grace = float(settings.get("graceful_shutdown_timeout_s") or DEFAULT_GRACE_S)
    return ReplicaDemand(app, deployment, labels, bundles, low, high, grace_s=grace)


def _bounds(settings: Mapping[str, Any]) -> tuple[int, int]:
    """Least and most replicas that Serve may run of a deployment."""
    autoscaling = settings.get("autoscaling_config")
    fixed = settings.get("num_replicas")
    if isinstance(autoscaling, dict):
        low = int(autoscaling.get("min_replicas", 1))
        return low, max(low, int(autoscaling.get("max_replicas", 1)))
    if fixed == "auto":
        return 1, 100  # what Serve takes for "auto"
    return (int(fixed), int(fixed)) if isinstance(fixed, int) else (1, 1)


def matches(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether a node with these labels is meant, by Ray's operators: `v`, `!v`, `in(a,b)`, `!in(a,b)`."""
    return all(_matches(wanted.strip(), labels.get(key)) for key, wanted in selector.items())


def _matches(wanted: str, found: str | None) -> bool:
    negated = wanted.startswith("!")
    body = wanted.removeprefix("!")
    group = re.fullmatch(r"in\((.*)\)", body)
    values = [v.strip() for v in group.group(1).split(",")] if group else [body]
    return (found in values) != negated


def holds(resources: Resources, piece: Resources) -> bool:
    """Whether a node with these resources has room for the piece."""
    return all(resources.get(name, 0.0) + ROUNDING >= amount for name, amount in piece.items() if amount > 0)


def eligible(ask: ReplicaDemand, nodes: Sequence[Nodes]) -> list[Nodes]:
    """The nodes that carry the pool's labels and know every custom resource that is asked."""
    custom = {name for piece in ask.pieces for name in piece} - {"CPU", "GPU", "memory"}
    return [n for n in nodes if matches(ask.labels, n.labels) and custom <= n.resources.keys()]


def unplaced(
    wanted: Sequence[tuple[ReplicaDemand, int]], nodes: Sequence[Nodes], *, most: bool
) -> dict[str, int]:
    """Replicas that find no room, by `Ask.key`, when the biggest are placed first.

    Args:
        wanted: each deployment with the replicas to place.
        nodes: what there is.
        most: count a group's `high` nodes, not its `low`.
    """
    pieces = sum(len(ask.pieces) * count for ask, count in wanted)
    rooms = [NodeState.of(n) for n in nodes for _ in range(min(n.high if most else n.low, max(pieces, 1)))]
    missing: dict[str, int] = {}
    for ask, count in sorted(wanted, key=lambda w: _weight(w[0]), reverse=True):
        able = {id(n) for n in eligible(ask, nodes)}
        # The tightest fit first: a plain deployment must not take the GPU node's processors.
        fitting = sorted((r for r in rooms if id(r.nodes) in able), key=lambda r: r.left.get("GPU", 0.0))
        placed = 0
        while placed < count and _place(ask, fitting):
            placed += 1
        if placed < count:
            missing[ask.key] = count - placed
    return missing


def _weight(ask: ReplicaDemand) -> tuple[float, float]:
    total = added(ask.bundles)
    return total.get("GPU", 0.0), total.get("CPU", 0.0)


def _place(ask: ReplicaDemand, rooms: Sequence[NodeState]) -> bool:
    """Put one replica where it fits, or leave everything as it was."""
    taken: list[tuple[NodeState, Resources, dict[int, float]]] = []
    for piece in ask.pieces:
        for room in rooms:
            if ask.most_per_node is not None and room.replicas.get(ask.key, 0) >= ask.most_per_node:
                continue
            seats = room.seats(piece.get("GPU", 0.0)) if holds(room.left, piece) else None
            if seats is not None:
                _take(room, piece, seats, 1)
                taken.append((room, piece, seats))
                break
        else:
            for used in taken:
                _take(*used, -1)
            return False
    for room in {id(r): r for r, *_ in taken}.values():
        room.replicas[ask.key] = room.replicas.get(ask.key, 0) + 1
    return True


def _take(room: NodeState, piece: Resources, seats: Mapping[int, float], sign: int) -> None:
    for name, amount in piece.items():
        room.left[name] = room.left.get(name, 0.0) - sign * amount
    for gpu, share in seats.items():
        room.gpus[gpu] -= sign * share
