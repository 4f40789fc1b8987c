"""What an ingress replica has for one expert, and what the experts of one engine share of it.

State only: `registry` keeps the records, `discovery` and `dispatcher` change what is in them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from deployments.config import ExpertTarget
from deployments.contracts.protocols import ExpertClient
from deployments.limits.admission import AdmissionQueue
from deployments.upstream.adapter_breaker import AdapterBreaker
from deployments.upstream.circuit_breaker import CircuitBreaker
from deployments.upstream.latency import LatencyEstimate
from deployments.upstream.load import LoadEstimate


@dataclass(slots=True)
class ExpertState:
    """An expert's replicas and application, as last seen."""

    running: int | None = None
    """Running replicas; `None` before anything is known, or for an expert elsewhere."""
    starting: int = 0
    """Replicas that start."""
    stopping: int = 0
    """Replicas that stop."""
    scaled_to_zero: bool = False
    """No replica by intent: a request starts one."""
    why_not_ready: str | None = "not seen yet"
    phase: str = ""
    """Status of its Serve application."""
    context_window: int | None = None
    """The engine's own limit."""
    window_is_stale: bool = False
    """Whether the engine may have been replaced since `context_window` was read."""
    model: str | None = None
    """The engine's model, as its replica reports it."""
    shape: Mapping[str, object] | None = None
    """Of the model's `config.json`, likewise."""

    @property
    def is_cold(self) -> bool:
        """Whether no replica is known to run."""
        return self.running == 0


@dataclass(frozen=True, slots=True)
class Engine:
    """What the experts of one engine share: of an application, or of a URL's only expert."""

    slots: AdmissionQueue
    breaker: CircuitBreaker
    state: ExpertState = field(default_factory=ExpertState)


@dataclass(slots=True)
class Expert:
    """Everything that an ingress replica has for one expert."""

    name: str
    target: ExpertTarget
    client: ExpertClient
    slots: AdmissionQueue
    """One for each request in flight; all experts of the engine share them."""
    breaker: CircuitBreaker | AdapterBreaker
    """The engine's; an adapter has one of its own beside it."""
    load: LoadEstimate
    state: ExpertState
    """The engine's."""
    latency: LatencyEstimate = field(default_factory=LatencyEstimate)
    adapter_error: str | None = None
    """Why its adapter is not loaded, where every replica reports so; `None` where it has none."""

    @property
    def why_not_ready(self) -> str | None:
        """Why it cannot respond; `None` where it can."""
        if self.state.why_not_ready is not None or self.adapter_error is None:
            return self.state.why_not_ready
        return f"adapter {self.target.adapter!r} is not loaded: {self.adapter_error}"

    @property
    def prefix(self) -> tuple[object, ...]:
        """Equal for experts whose engine holds one prefix for both: an engine keeps adapters apart."""
        return id(self.slots), self.target.adapter, self.target.system
