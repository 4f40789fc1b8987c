"""The experts as one ingress replica deals with them: clients, health, places, and waking the sleeping.

Knows nothing of HTTP requests or of how experts are chosen.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from deployments.config import ExpertTarget, IngressConfig
from deployments.contracts.errors import ExpertError
from deployments.contracts.protocols import ExpertClient
from deployments.limits.admission import AdmissionQueue
from deployments.upstream.attempts import Attempt
from deployments.upstream.circuit_breaker import CircuitBreaker
from deployments.upstream.dispatcher import Dispatcher
from deployments.upstream.eligibility import Directory

logger = logging.getLogger("ray.serve")

UNBOUNDED = 1_000_000
WAKE_TIMEOUT_S = 300.0
"""How long one wake-up request stays, and with it the demand that Serve's autoscaler sees."""


class Fleet:
    """Every configured expert, and what was learnt of it."""

    def __init__(
        self,
        directory: Directory,
        client_for: Callable[[str, ExpertTarget], ExpertClient],
        observe: Callable[[Attempt], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.directory = directory
        self._client_for = client_for
        self._observe = observe
        self._clock = clock
        self._targets: Mapping[str, ExpertTarget] = {}
        self._clients: dict[str, ExpertClient] = {}
        self.health: dict[str, CircuitBreaker] = {}
        self.gates: dict[str, AdmissionQueue] = {}
        self._waking: dict[str, asyncio.Task[None]] = {}
        self.dispatcher: Dispatcher

    def apply(self, config: IngressConfig) -> None:
        """Put a configuration in force; clients, health and places of unchanged experts stay."""
        self._clients = {
            name: self._clients[name]
            if name in self._clients and self._targets.get(name) == target
            else self._client_for(name, target)
            for name, target in config.experts.items()
        }
        self._targets = dict(config.experts)
        self.health = {name: self.health.get(name) or CircuitBreaker(self._clock) for name in config.experts}
        self.gates = {
            name: self._gate(name, target.max_in_flight, config) for name, target in config.experts.items()
        }
        self.dispatcher = Dispatcher(
            self._clients,
            self.health,
            gates=self.gates,
            cold=self.is_cold,
            first_byte_limit_s=config.limits.first_token_timeout_s,
            clock=self._clock,
            observe=self._observe,
        )

    def unavailable(self) -> dict[str, str]:
        """Expert → why it may not be asked now."""
        return {
            name: "circuit breaker open" for name, health in self.health.items() if not health.available()
        }

    def retry_after_s(self) -> float:
        """When the first of the open breakers lets a request through; at least a second."""
        return max(1.0, min((health.retry_after_s() for health in self.health.values()), default=1.0))

    def ttft_ms(self) -> dict[str, float]:
        """Expert → its usual wait for a stream's first byte, where it is known."""
        return {name: health.ttft_ms for name, health in self.health.items() if health.ttft_ms is not None}

    def is_cold(self, name: str) -> bool:
        """Whether no replica of it runs, as far as is known."""
        state = self.directory.experts.get(name)
        return state is not None and state.running == 0

    def passed_over(self) -> frozenset[str]:
        """Cold experts whose queries go to the next in the ranking."""
        return frozenset(
            name for name, target in self._targets.items() if target.cold == "next" and self.is_cold(name)
        )

    def wake(self, name: str) -> None:
        """Let Serve see demand for a sleeping expert: one small request waits there, never more.

        An expert that is passed over would otherwise sleep for ever.
        """
        if name in self._waking or not self.is_cold(name):
            return
        task = asyncio.create_task(self._wake(name))
        self._waking[name] = task
        task.add_done_callback(lambda _: self._waking.pop(name, None))

    async def _wake(self, name: str) -> None:
        logger.info("waking expert %s", name)
        try:
            stream = await self._clients[name].open("GET", "/v1/models", (), b"", WAKE_TIMEOUT_S)
            await stream.aclose()
        except ExpertError as error:
            logger.info("expert %s did not wake up: %s", name, error.why)

    def _gate(self, name: str, slots: int | None, config: IngressConfig) -> AdmissionQueue:
        queued, wait_s = config.limits.max_queued, config.limits.max_queue_wait_s
        if (gate := self.gates.get(name)) is not None:
            gate.resize(slots or UNBOUNDED, max_queued=queued, max_wait_s=wait_s)
            return gate
        return AdmissionQueue(
            slots or UNBOUNDED,
            max_queued=queued,
            max_wait_s=wait_s,
            full_code="expert_overloaded",
            what=f"the expert {name}",
            clock=self._clock,
        )
