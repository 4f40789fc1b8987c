"""What travels between the deployments; `router.core` has the route request and the decision.

Plain frozen values that every process can read: imports neither Ray nor vLLM.
"""

import copyreg
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from operator import attrgetter
from types import MappingProxyType
from typing import Any

from router.core import Arm, Decision, ExpertLoad, Preferences, RouteRequest
from router.experts import Price
from router.plans.acceptance import AcceptanceModel
from router.plans.plan import Plan

Headers = Sequence[tuple[bytes, bytes]]
"""HTTP headers as ASGI has them: lower-case names, raw values."""
TraceContext = Mapping[str, str]
"""W3C trace context: `traceparent` and `tracestate`, as far as they are present."""
NO_TRACE: TraceContext = MappingProxyType({})
HEARTBEAT = b""
"""What an expert's replica sends before the head of a response while its engine makes progress."""
HEARTBEATS = (b"x-heartbeats", b"1")
"""The header by which a caller gets heartbeats; a replica without them ignores it."""
REPLICA_KEY = b"x-replica-key"
"""The header by whose value requests go to the same replica of an expert; it leaves no cluster."""


@dataclass(frozen=True, slots=True)
class RouterResponse:
    """What a router replica returns for one request."""

    decision: Decision | None
    """`None` while the replica has no policy to decide with."""
    no_policy: str = ""
    """Why there is no decision."""


@dataclass(frozen=True, slots=True)
class ServedPlan:
    """A plan of the policy, and the model that its answers are accepted by."""

    plan: Plan
    model: AcceptanceModel


@dataclass(frozen=True, slots=True)
class PolicyView:
    """What the ingress knows of the policy in effect."""

    policy_id: str
    experts: tuple[str, ...]
    static_ranking: tuple[str, ...]
    """Best first, for when there is no decision."""
    context_windows: Mapping[str, int] = field(default_factory=dict)
    prices: Mapping[str, Price] = field(default_factory=dict)
    folder: str = ""
    best_single: str | None = None
    """The expert that was best alone on the training data; `None` where the policy does not say."""
    preferences: Preferences | None = None
    """Preferences of a request without any."""
    plans: Mapping[str, ServedPlan] = field(default_factory=dict)
    """Name → plan."""
    is_prior: bool = False
    """Whether it was made from priors, before any outcome of its experts."""


@dataclass(frozen=True, slots=True)
class CanaryView:
    """What the ingress knows of the configured canary."""

    policy: PolicyView
    phase: str
    """`waiting` for the coordinator, `running`, `rolled_back`, or `over`."""
    rolled_back: str | None = None
    """The reason; `None` while it is not rolled back."""


@dataclass(frozen=True, slots=True)
class RouterState:
    """What a router replica serves, and why it rejected the last configuration."""

    policy: PolicyView | None
    error: str | None
    """Why the last `user_config` was rejected; `None` when it is in effect."""
    canary: CanaryView | None = None
    """`None` where none is configured."""


@dataclass(frozen=True, slots=True)
class ReplicaLoad:
    """The load of an expert's replica, which it reports with each response."""

    running: int
    """Requests that its engine works at."""
    waiting: int
    """Requests that its engine works at later."""
    kv_use: float = 0.0
    """Used share of its KV cache, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Head:
    """The start of a response, sent together with its first body bytes."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    complete: bool
    """No further body follows."""
    load: ReplicaLoad | None = None
    """Of the replica that sends it; `None` where it does not say."""


def _as_call(kind: type[Any]) -> Callable[[Any], tuple[type[Any], tuple[Any, ...]]]:
    """How a value is pickled: as a call of its class.

    Frozen dataclasses with slots are pickled as a state that Python code reads and sets field by field,
    which takes several times as long.
    """
    values = attrgetter(*(one.name for one in fields(kind)))
    return lambda value: (kind, values(value))


for _kind in (Preferences, ExpertLoad, RouteRequest, Arm, Decision, RouterResponse):
    copyreg.pickle(_kind, _as_call(_kind))
