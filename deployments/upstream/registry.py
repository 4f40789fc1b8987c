"""One record per expert, and the router's last state: what an ingress replica knows of the graph.

Holds state only. `discovery` refreshes it from Serve, `dispatcher` calls the experts, `eligibility`
has the rules over it. The last good view of the policy stays while the router does not respond.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from deployments.config import ExpertTarget, IngressConfig
from deployments.contracts.errors import ErrorCode, ExpertError
from deployments.contracts.messages import CanaryView, PolicyView, RouterState, ServedPlan
from deployments.contracts.protocols import ExpertClient
from deployments.limits.admission import AdmissionQueue
from deployments.upstream.adapter_breaker import AdapterBreaker
from deployments.upstream.circuit_breaker import CircuitBreaker
from deployments.upstream.expert import Engine, Expert
from deployments.upstream.load import LoadEstimate, Present, loads_now
from deployments.upstream.variant_client import VariantClient
from router.core import ExpertLoad

logger = logging.getLogger("ray.serve")

UNBOUNDED = 1_000_000
SCALE_UP_TIMEOUT_S = 300.0
"""How long a request that scales from zero stays, and with it the demand that Serve's autoscaler sees."""


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
        self._engines: dict[str, Engine] = {}
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
        """Put a configuration into effect; what was learnt is kept while an expert's name or engine stays."""
        self.config = config
        before = {id(expert.client): expert.client for expert in self.experts.values()}
        engines: dict[str, Engine] = {}
        for name, target in config.experts.items():
            if (key := _engine_of(name, target)) not in engines:
                engines[key] = self._engine(name, target, config)
        self._engines = engines
        self.experts = {name: self._expert(name, target) for name, target in config.experts.items()}
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
        if expert is None or not expert.state.is_cold:
            return
        engine = _engine_of(name, expert.target)
        if engine in self._scaling_up:
            return
        for other in self.sharing(expert):
            other.load.begins_to_start()
        task = asyncio.create_task(self._scale_up(expert))
        self._scaling_up[engine] = task
        task.add_done_callback(lambda _: self._scaling_up.pop(engine, None))

    def engines(self) -> Mapping[str, Expert]:
        """The first expert of each engine: for what is counted once, however many variants it has."""
        first: dict[int, Expert] = {}
        for expert in self.experts.values():
            first.setdefault(id(expert.slots), expert)
        return {expert.name: expert for expert in first.values()}

    def sharing(self, expert: Expert) -> Sequence[Expert]:
        """The experts of an expert's engine, itself among them."""
        return [other for other in self.experts.values() if other.slots is expert.slots]

    def with_shared_prefixes(self, cached_tokens: Mapping[str, int]) -> Mapping[str, int]:
        """Expert → tokens of a prompt that its engine holds from any variant with the same prefix.

        An engine keeps prefixes apart by adapter, and another system text is another prefix.

        Args:
            cached_tokens: the same, of the experts that responded.
        """
        held: dict[tuple[object, ...], int] = {}
        for name, tokens in cached_tokens.items():
            if (expert := self.experts.get(name)) is not None:
                prefix = expert.prefix
                held[prefix] = max(tokens, held.get(prefix, 0))
        prefixes = {name: expert.prefix for name, expert in self.experts.items()}
        return {name: held[prefix] for name, prefix in prefixes.items() if prefix in held}

    def _engine(self, name: str, target: ExpertTarget, config: IngressConfig) -> Engine:
        slots = config.max_in_flight(name) or UNBOUNDED
        queued, wait_s = config.limits.max_queued, config.limits.max_queue_wait_s
        known = self._engines.get(_engine_of(name, target))
        if known is not None:
            known.slots.resize(slots, max_queued=queued, max_wait_s=wait_s)
            return known
        queue = AdmissionQueue(
            slots,
            max_queued=queued,
            max_wait_s=wait_s,
            full_code=ErrorCode.EXPERT_OVERLOADED,
            what=f"the expert {name}",
            clock=self._clock,
        )
        return Engine(queue, CircuitBreaker(self._clock))

    def _expert(self, name: str, target: ExpertTarget) -> Expert:
        engine, known = self._engines[_engine_of(name, target)], self.experts.get(name)
        if known is None:
            breaker = self._breaker(engine, target)
            client, load = self._client(name, target), LoadEstimate(self._clock)
            return Expert(name, target, client, engine.slots, breaker, load, engine.state)
        is_same = known.slots is engine.slots and known.target.adapter == target.adapter
        return replace(
            known,
            target=target,
            client=known.client if known.target == target else self._client(name, target),
            slots=engine.slots,
            breaker=known.breaker if is_same else self._breaker(engine, target),
            state=engine.state,
            adapter_error=known.adapter_error if is_same else None,
        )

    def _breaker(self, engine: Engine, target: ExpertTarget) -> CircuitBreaker | AdapterBreaker:
        if target.adapter is None:
            return engine.breaker
        return AdapterBreaker(engine.breaker, CircuitBreaker(self._clock))

    def _client(self, name: str, target: ExpertTarget) -> ExpertClient:
        client = self._client_for(name, target)
        if target.variant is None:
            return client
        return VariantClient(client, name, target.variant, in_cluster=target.app is not None)

    async def _scale_up(self, expert: Expert) -> None:
        began = self._clock()
        logger.info("scaling expert %s from zero", expert.name)
        try:
            stream = await expert.client.open("GET", "/v1/models", (), b"", SCALE_UP_TIMEOUT_S)
            await stream.aclose()
            for other in self.sharing(expert):
                other.load.started(self._clock() - began)
        except ExpertError as error:
            for other in self.sharing(expert):
                other.load.begins_no_more()
            logger.info("expert %s did not start: %s", expert.name, error.why)


def _engine_of(name: str, target: ExpertTarget) -> str:
    """Identifies the engine of an expert: its application, else the expert itself."""
    return f"expert {name}" if target.app is None else f"application {target.app}"
