"""Ask the experts of a ranking in turn until one answers; before the first byte only.

Knows nothing of HTTP clients: it returns an opened stream, or raises what the client shall see.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from deployments.contracts.call_order import STARTING_RETRY_S, CallOrder
from deployments.contracts.deadlines import Deadline
from deployments.contracts.errors import (
    ApiError,
    DeadlineExceeded,
    ExpertBroken,
    ExpertError,
    ExpertOverloaded,
    ExpertTimeout,
    ExpertUnavailable,
    Unavailable,
)
from deployments.contracts.messages import Headers
from deployments.contracts.protocols import ExpertClient, ResponseStream
from deployments.contracts.requests import InferenceRequest
from deployments.limits.admission import AdmissionQueue, Priority, acquire_any
from deployments.upstream.attempts import Attempt, OpenedResponse
from deployments.upstream.circuit_breaker import Answer, CircuitBreaker
from deployments.upstream.responses import begun, complete, fits_elsewhere, refused


async def acquire_within(
    deadline: Deadline, gates: Sequence[AdmissionQueue], priority: Priority
) -> AdmissionQueue:
    """Take a place at the first of several gates that has one; errors as `acquire_any` has them.

    Raises:
        DeadlineExceeded: no place came free within the deadline.
    """
    try:
        return await acquire_any(gates, priority, deadline.left_s())
    except Unavailable as error:
        if deadline.left_s() <= 0:
            why = f"no place came free within the deadline of {deadline.seconds:g} s"
            raise DeadlineExceeded(why) from error
        raise


class Dispatcher:
    """Asks experts, and learns how they do."""

    def __init__(
        self,
        clients: Mapping[str, ExpertClient],
        health: Mapping[str, CircuitBreaker],
        *,
        gates: Mapping[str, AdmissionQueue],
        cold: Callable[[str], bool] = lambda _: False,
        first_byte_limit_s: float,
        clock: Callable[[], float] = time.monotonic,
        observe: Callable[[Attempt], None] = lambda _: None,
    ) -> None:
        self.clients = clients
        self.health = health
        self.gates = gates
        self._cold = cold
        self.first_byte_limit_s = first_byte_limit_s
        self._clock = clock
        self._observe = observe

    async def open(
        self,
        ask: InferenceRequest,
        choice: CallOrder,
        headers: Headers,
        deadline: Deadline,
        *,
        attempts_at_most: int | None = None,
    ) -> OpenedResponse:
        """The first answer that a ranking's experts give.

        Args:
            attempts_at_most: experts that may be asked; `None` for all of the ranking.

        Raises:
            ApiError: an expert refused the request itself (its 4xx, in our envelope), or none could
                answer within the deadline.
        """
        asking = _Asking(ask, choice, headers, deadline, attempts_at_most)
        candidates = choice.ranking if choice.fallback else choice.ranking[:1]
        full: list[str] = []
        for position, name in enumerate(candidates):
            if asking.over():
                break
            if not self.health[name].available():
                continue
            if not self.gates[name].try_acquire():
                full.append(name)
                continue
            alone = position == len(candidates) - 1 and not full
            if (opened := await self._ask_within_place(name, asking, alone=alone)) is not None:
                return opened
        # All that could answer are full or failed: wait for a place at any that is full.
        while full and not asking.over():
            slot = await acquire_within(deadline, [self.gates[name] for name in full], ask.routing.priority)
            name = next(name for name in full if self.gates[name] is slot)
            full.remove(name)
            if not self.health[name].available():  # it failed in the meantime
                slot.release()
                continue
            if (opened := await self._ask_within_place(name, asking, alone=not full)) is not None:
                return opened
        raise self._give_up(asking)

    async def _ask_within_place(self, name: str, asking: "_Asking", *, alone: bool) -> OpenedResponse | None:
        """Ask one expert in whose gate a place is held; `None` if the next may be asked."""
        gate = self.gates[name]
        started = self._clock()
        left_s = asking.deadline.left_s()
        patient = alone or asking.is_last_attempt() or self._cold(name)
        limit_s = left_s if patient else min(left_s, self._patience_s(name, asking.ask))
        connect_s = None if patient else self.health[name].connect_limit_s()
        opened = None
        try:
            stream = await self._attempt(name, asking.ask, asking.headers, limit_s, connect_s)
        except ExpertError as error:
            asking.last = error
            asking.attempts.append(self._note(name, _outcome(error), started))
        except ApiError as error:
            if not fits_elsewhere(error) or not asking.choice.fallback:
                raise
            # Its window is smaller than the estimate said, say: as good as ineligible.
            asking.last = error
            asking.attempts.append(self._note(name, "ineligible", started))
        else:
            answered = self._note(name, "answered", started)
            opened = OpenedResponse(name, stream, (*asking.attempts, answered), answered.seconds, gate)
        finally:
            if opened is None:
                gate.release()
        return opened

    def _patience_s(self, name: str, ask: InferenceRequest) -> float:
        return self.health[name].limit_s(_waited_for(ask), self.first_byte_limit_s)

    async def _attempt(
        self, name: str, ask: InferenceRequest, headers: Headers, limit_s: float, connect_s: float | None
    ) -> ResponseStream:
        client, health = self.clients[name], self.health[name]
        started = self._clock()
        health.started()
        try:
            body = ask.body_for(client.model)
            stream = await client.open("POST", ask.path, headers, body, limit_s, connect_s)
            if not 200 <= stream.head.status < 300:
                raise await refused(name, stream, limit_s - (self._clock() - started))
            if ask.stream:
                await begun(name, stream, limit_s - (self._clock() - started))
            else:
                await complete(name, stream, limit_s - (self._clock() - started))
        except ExpertOverloaded:
            health.abandoned()  # busy is not broken
            raise
        except (ExpertUnavailable, ExpertBroken):
            health.failed()
            raise
        except ApiError:
            health.alive()  # it found fault with the request
            raise
        except BaseException:
            # Out of time, or the client left: the expert's fault only where it was given its time.
            if self._clock() - started >= self._patience_s(name, ask) and not self._cold(name):
                health.failed()
            else:
                health.abandoned()
            raise
        health.succeeded(_waited_for(ask), self._clock() - started, stream.connected_s)
        return stream

    def _note(self, name: str, outcome: str, started: float) -> Attempt:
        attempt = Attempt(name, outcome, self._clock() - started)
        self._observe(attempt)
        return attempt

    def _give_up(self, asking: "_Asking") -> ApiError:
        last, attempts, deadline = asking.last, asking.attempts, asking.deadline
        told = ", ".join(f"{attempt.expert} ({attempt.outcome})" for attempt in attempts) or "none"
        if isinstance(last, ExpertTimeout) and self._cold(last.expert):
            return Unavailable(
                f"the expert {last.expert} is still starting; asked: {told}",
                "expert_starting",
                None,
                STARTING_RETRY_S,
            )
        if deadline.left_s() <= 0 or isinstance(last, ExpertTimeout):
            return DeadlineExceeded(f"no expert answered within {deadline.seconds:g} s; asked: {told}")
        if isinstance(last, ApiError):
            return last
        if last is None:
            ranking = asking.choice.ranking
            wait_s = min(self.health[name].retry_after_s() for name in ranking)
            names = ", ".join(ranking)
            return Unavailable(
                f"circuit breaker open for {names}", "expert_unavailable", None, max(1.0, wait_s)
            )
        wait_s = max((self.health[attempt.expert].retry_after_s() for attempt in attempts), default=0.0)
        code = "expert_overloaded" if isinstance(last, ExpertOverloaded) else "expert_unavailable"
        return Unavailable(
            f"no expert could answer; asked: {told}", code, None, max(1.0, wait_s, last.retry_after_s or 0.0)
        )


@dataclass(slots=True)
class _Asking:
    """One request on its way through the ranking."""

    ask: InferenceRequest
    choice: CallOrder
    headers: Headers
    deadline: Deadline
    attempts_at_most: int | None
    attempts: list[Attempt] = field(default_factory=list)
    last: ExpertError | ApiError | None = None

    def over(self) -> bool:
        return self.deadline.left_s() <= 0 or len(self.attempts) == self.attempts_at_most

    def is_last_attempt(self) -> bool:
        return len(self.attempts) + 1 == self.attempts_at_most


def _waited_for(ask: InferenceRequest) -> Answer:
    return "stream" if ask.stream else "whole"


def _outcome(error: ExpertError) -> str:
    names = {
        ExpertTimeout: "timeout",
        ExpertOverloaded: "overloaded",
        ExpertUnavailable: "unavailable",
        ExpertBroken: "broken",
    }
    return names.get(type(error), "failed")
