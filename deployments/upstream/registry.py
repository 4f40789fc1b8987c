"""One record per expert, and the router's last state: what an ingress replica knows of the graph.

Holds state only. `discovery` refreshes it from Serve, `dispatcher` calls the experts, `eligibility`
has the rules over it. The last good view of the policy stays while the router does not respond.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from deployments.config import ExpertTarget, IngressConfig
from deployments.contracts.errors import ErrorCode, ExpertError
from deployments.contracts.messages import CanaryView, PolicyView, RouterState, ServedPlan
from deployments.contracts.protocols import ExpertClient
from deployments.limits.admission import AdmissionQueue
from deployments.upstream.circuit_breaker import CircuitBreaker
from deployments.upstream.latency import LatencyEstimate
from deployments.upstream.load import LoadEstimate, Present, loads_now
from router.core import ExpertLoad

logger = logging.getLogger("ray.serve")

UNBOUNDED = 1_000_000
SCALE_UP_TIMEOUT_S = 300.0
"""How long a request that scales from zero stays, and with it the demand that Serve's autoscaler sees."""


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

    @property
    def is_cold(self) -> bool:
        """Whether no replica is known to run."""
        return self.running == 0


@dataclass(slots=True)
class Expert:
    """Everything that an ingress replica has for one expert."""

    name: str
    target: ExpertTarget
    client: ExpertClient
    slots: AdmissionQueue
    """One for each request in flight."""
    breaker: CircuitBreaker
    load: LoadEstimate
    latency: LatencyEstimate = field(default_factory=LatencyEstimate)
    state: ExpertState = field(default_factory=ExpertState)


class ExpertRegistry:
    """The experts of the configuration in effect, and the policy that the router serves.

    Args:
        config: the first configuration.
        client_for: makes the client of an expert from its name and target.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        config: IngressConfig,
        client_for: Callable[[str, ExpertTarget], ExpertClient],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client_for = client_for
        self._clock = clock
        self._scaling_up: dict[str, asyncio.Task[None]] = {}
        self._retiring: set[asyncio.Task[None]] = set()
        self.config = config
        self.policy: PolicyView | None = None
        self._previous_policy: PolicyView | None = None
        self.canary: CanaryView | None = None
        self.router_error: str | None = "the router has not responded yet"
        self.experts: Mapping[str, Expert] = {}
        """Replaced as a whole with each configuration: a request keeps the experts that it began with."""
        self.reconfigure(config)

    def reconfigure(self, config: IngressConfig) -> None:
        """Put a configuration into effect; what was learnt of an expert is kept while its name stays."""
        self.config = config
        before = {id(expert.client): expert.client for expert in self.experts.values()}
        self.experts = {name: self._expert(name, target, config) for name, target in config.experts.items()}
        for expert in self.experts.values():
            before.pop(id(expert.client), None)
        for client in before.values():
            task = asyncio.create_task(client.retire())
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)

    def update_router(self, state: RouterState) -> None:
        """Take over the state that a router replica reported."""
        if state.policy is not None:
            if self.policy is not None and self.policy.policy_id != state.policy.policy_id:
                self._previous_policy = self.policy
            self.policy = state.policy
            self.canary = state.canary
        self.router_error = state.error

    def lose_router(self, why: str) -> None:
        """Note that the router did not respond; its last policy view stays."""
        self.router_error = why

    def plan(self, policy_id: str | None, name: str) -> ServedPlan | None:
        """A plan of the policy that decided: the present one, the canary's or the one before it."""
        canary = None if self.canary is None else self.canary.policy
        policies = (self.policy, canary, self._previous_policy)
        return next(
            (policy.plans.get(name) for policy in policies if policy and policy.policy_id == policy_id), None
        )

    def latency_ms(self) -> dict[str, float]:
        """Expert → usual time to the end of a non-streaming response, where it is known and not old."""
        return {
            name: latency_ms * expert.load.trust()
            for name, expert in self.experts.items()
            if (latency_ms := expert.latency.latency_ms) is not None
        }

    def loads(self, cached_tokens: Mapping[str, int], *, limited: bool = False) -> dict[str, ExpertLoad]:
        """Expert → what one more request would meet there now, where it is known.

        Args:
            cached_tokens: expert → tokens of that request's prompt that it holds.
            limited: whether a limit excludes slow experts. Then what is old counts less, and one at zero
                replicas is as if it ran: excluded by its start, it would never be started.
        """
        loads = loads_now(
            {
                name: Present(
                    expert.load,
                    expert.slots.held + expert.slots.queued,
                    expert.slots.slots,
                    cached_tokens.get(name, 0),
                    # Where requests go elsewhere anyway, the ranking is as if it ran: so it is scaled up.
                    cold=expert.state.is_cold and expert.target.cold != "next" and not limited,
                )
                for name, expert in self.experts.items()
            }
        )
        if not limited:
            return loads
        return {name: load.faded(self.experts[name].load.trust()) for name, load in loads.items()}

    def ttft_ms(self) -> dict[str, float]:
        """Expert → usual time to a stream's first byte, where it is known and not old."""
        return {
            name: ttft_ms * expert.load.trust()
            for name, expert in self.experts.items()
            if (ttft_ms := expert.latency.ttft_ms) is not None
        }

    def retry_after_s(self) -> float:
        """Seconds until the first open breaker lets a request through; at least one."""
        waits = (expert.breaker.retry_after_s() for expert in self.experts.values())
        return max(1.0, min(waits, default=1.0))

    def scale_up(self, name: str) -> None:
        """Show Serve demand for an expert at zero replicas: one small request waits there, never more.

        Without it, an expert whose requests go to other experts would stay at zero forever.
        """
        expert = self.experts.get(name)
        if expert is None or name in self._scaling_up or not expert.state.is_cold:
            return
        expert.load.begins_to_start()
        task = asyncio.create_task(_scale_up(expert, self._clock))
        self._scaling_up[name] = task
        task.add_done_callback(lambda _: self._scaling_up.pop(name, None))

    def _expert(self, name: str, target: ExpertTarget, config: IngressConfig) -> Expert:
        slots = target.max_in_flight or UNBOUNDED
        queued, wait_s = config.limits.max_queued, config.limits.max_queue_wait_s
        known = self.experts.get(name)
        if known is None:
            queue = AdmissionQueue(
                slots,
                max_queued=queued,
                max_wait_s=wait_s,
                full_code=ErrorCode.EXPERT_OVERLOADED,
                what=f"the expert {name}",
                clock=self._clock,
            )
            client = self._client_for(name, target)
            return Expert(name, target, client, queue, CircuitBreaker(self._clock), LoadEstimate(self._clock))
        known.slots.resize(slots, max_queued=queued, max_wait_s=wait_s)
        client = known.client if known.target == target else self._client_for(name, target)
        return replace(known, target=target, client=client)


async def _scale_up(expert: Expert, clock: Callable[[], float]) -> None:
    began = clock()
    logger.info("scaling expert %s from zero", expert.name)
    try:
        stream = await expert.client.open("GET", "/v1/models", (), b"", SCALE_UP_TIMEOUT_S)
        await stream.aclose()
        expert.load.started(clock() - began)
    except ExpertError as error:
        expert.load.begins_no_more()
        logger.info("expert %s did not start: %s", expert.name, error.why)
