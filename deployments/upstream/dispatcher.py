"""Call the experts of a ranking in turn until one responds; before the first byte only.

Knows nothing of HTTP clients: it returns an opened response, or raises the error for the client.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from deployments.contracts.call_order import STARTING_RETRY_S, CallOrder
from deployments.contracts.deadlines import Deadline
from deployments.contracts.errors import (
    ApiError,
    DeadlineExceeded,
    ErrorCode,
    ExpertBroken,
    ExpertError,
    ExpertOverloaded,
    ExpertTimeout,
    ExpertUnavailable,
    ExpertUnreachable,
    Unavailable,
)
from deployments.contracts.heartbeats import Progress
from deployments.contracts.messages import Headers
from deployments.contracts.protocols import ResponseStream
from deployments.contracts.requests import InferenceRequest
from deployments.limits.admission import acquire_within
from deployments.upstream.attempts import Attempt, OpenedResponse
from deployments.upstream.expert import Expert
from deployments.upstream.latency import ResponseForm
from deployments.upstream.load import NOTHING, Begun
from deployments.upstream.registry import ExpertRegistry
from deployments.upstream.responses import error_of, fits_elsewhere, read_complete, read_first_event
from deployments.upstream.retry_budget import RetryBudget

FINGERPRINTED_BYTES = 64 * 1024
"""Of each end of a body: requests that share both ends and their length count as one."""
SHARE_OF_FIRST = 2 / 3
"""Of the time left: an attempt ends there although its engine works, so that another expert can respond."""
MAX_FAILURES = 2
"""Experts that may accept a request and fail: a request that kills engines shall not meet them all."""


class Dispatcher:
    """Calls experts, and records how they respond.

    Args:
        registry: the experts.
        clock: monotonic seconds.
        observe: called with every attempt.
    """

    def __init__(
        self,
        registry: ExpertRegistry,
        *,
        clock: Callable[[], float] = time.monotonic,
        observe: Callable[[Attempt], None] = lambda _: None,
    ) -> None:
        self._registry = registry
        self._clock = clock
        self._observe = observe
        self._retries = RetryBudget(
            lambda: sum(expert.slots.held for expert in registry.engines().values()), clock
        )

    async def open(
        self,
        request: InferenceRequest,
        order: CallOrder,
        headers: Headers,
        deadline: Deadline,
        *,
        max_attempts: int | None = None,
        failed: list[Attempt] | None = None,
        cache_salt: str | None = None,
        owner: str = "",
        holds_slot: bool = False,
    ) -> OpenedResponse:
        """Open the first 2xx response that the experts of a ranking give.

        Args:
            request: the request.
            order: the experts to call.
            headers: request headers for the expert.
            deadline: the request's deadline, until its first byte.
            max_attempts: experts that may be called; `None` for all of the ranking.
            failed: gets each attempt that ended without a response to relay, however this call ends.
            cache_salt: separates the request in the prefix caches of this cluster's engines.
            owner: the id of the request's key, to which the queues for slots are fair.
            holds_slot: whether the caller acquired a slot of the first expert for this call, which
                releases it unless it returns a response.

        Raises:
            ApiError: an expert rejected the request itself (its 4xx, in our envelope), or none
                responded within the deadline.
        """
        # A new configuration replaces the mapping: this request keeps the experts that it began with.
        experts = self._registry.experts
        ranking = order.ranking if order.fallback else order.ranking[:1]
        candidates = [experts[name] for name in ranking if name in experts]
        attempts = [] if failed is None else failed
        call = _Call(
            request, order, headers, deadline, candidates, max_attempts, attempts, holds_slot=holds_slot
        )
        call.cache_salt, call.owner = cache_salt, owner
        try:
            return await self._open(call)
        finally:
            if call.is_retry:
                self._retries.release()

    async def _open(self, call: "_Call") -> OpenedResponse:
        candidates, priority = call.candidates, call.request.routing.priority
        full: list[Expert] = []
        if call.holds_slot and (call.is_over() or not candidates[0].breaker.available()):
            candidates[0].slots.release(1, call.owner)
            call.holds_slot = False
        waiting, has_slot = list(candidates), call.holds_slot
        while waiting:
            if not await self._may_go_on(call):
                break
            expert = waiting.pop(0)
            holds_slot, has_slot = has_slot, False  # of the first candidate alone
            if not expert.breaker.available():
                continue
            if not holds_slot and not expert.slots.try_acquire(call.owner):
                full.append(expert)
                continue
            failures = call.failures
            alone = not waiting and not full
            if (opened := await self._call_within_slot(expert, call, alone=alone)) is not None:
                return opened
            if call.failures > failures:
                # Variants of one engine fail together: another engine is called before them.
                same = [other for other in waiting if other.slots is expert.slots]
                waiting = [other for other in waiting if other.slots is not expert.slots] + same
        # Every available expert is full or failed: wait for a slot at any that is full.
        while full and await self._may_go_on(call):
            queues = list(dict.fromkeys(expert.slots for expert in full))  # variants share one
            slot = await acquire_within(call.deadline, queues, priority, call.owner)
            expert = next(expert for expert in full if expert.slots is slot)
            full.remove(expert)
            if not expert.breaker.available():  # it failed in the meantime
                slot.release(1, call.owner)
                continue
            if (opened := await self._call_within_slot(expert, call, alone=not full)) is not None:
                return opened
        raise _no_response(call)

    async def _may_go_on(self, call: "_Call") -> bool:
        """Whether another expert may be called; after a failure once the retry budget has capacity."""
        if call.failures and not call.is_over() and not call.is_retry:
            call.is_retry = await self._retries.acquire(call.deadline, call.request.routing.priority)
            return call.is_retry and not call.is_over()
        return not call.is_over()

    async def _call_within_slot(self, expert: Expert, call: "_Call", *, alone: bool) -> OpenedResponse | None:
        """Call one expert of which a slot is held; `None` if the next may be called."""
        started = self._clock()
        slots_held = expert.slots.occupy(call.request.sequences, call.owner)
        uncached = call.request.longest_tokens - call.order.cached_tokens.get(expert.name, 0)
        call.met = expert.load.begun(max(0, uncached), expert.slots.held, expert.slots.slots)
        call.began = False
        unhurried = alone or call.is_last_attempt() or expert.state.is_cold
        # Nothing follows the last failure, but the next expert may follow one that cannot be reached.
        patience = self._patience(expert, call, patient=unhurried or call.is_last_failure())
        connect_s = None if unhurried else expert.latency.connect_timeout_s()
        opened = None
        try:
            stream = await self._attempt(expert, call, patience, connect_s)
        except ExpertError as error:
            call.last_error = error
            call.failures += not isinstance(error, ExpertOverloaded | ExpertUnreachable)
            call.attempts.append(self._record(expert, _outcome(error), started, began=call.began))
        except ApiError as error:
            if not fits_elsewhere(error) or not call.order.fallback:
                raise
            # For instance, its context window is smaller than estimated: as good as ineligible.
            call.last_error = error
            call.attempts.append(self._record(expert, "ineligible", started))
        except asyncio.CancelledError:
            call.attempts.append(self._record(expert, "cancelled", started, began=call.began))
            raise
        else:
            attempt = self._record(expert, "answered", started)
            attempts = (*call.attempts, attempt)
            broke = partial(expert.breaker.record_break, call.fingerprint)
            opened = OpenedResponse(
                expert.name, stream, attempts, attempt.seconds, expert.slots, broke, slots_held
            )
            if call.request.stream:
                opened.read_to_end = partial(self._learn_end, expert, call.met, started, attempt.seconds)
        finally:
            if opened is None:
                expert.slots.release(slots_held, call.owner)
        return opened

    def _patience(self, expert: Expert, call: "_Call", *, patient: bool) -> "_Patience":
        """Return the limits of an attempt; those of a patient one are the deadline's alone."""
        request, left_s = call.request, call.deadline.left_s()
        beats = not request.stream and expert.target.app is not None
        most_tokens = 0 if beats or request.stream else _most_tokens(expert, request)
        usual_s = expert.latency.attempt_timeout_s(
            _form(request), self._registry.config.limits.first_token_timeout_s, most_tokens
        )
        silence_s = None if patient else usual_s
        if beats:
            # An engine that works for others may still never come to this request.
            most_s = left_s if patient else SHARE_OF_FIRST * left_s
            return _Patience(most_s, usual_s, Progress(silence_s, self._clock), beats=True)
        timeout_s = left_s if silence_s is None else min(left_s, silence_s)
        return _Patience(timeout_s, usual_s, Progress(None, self._clock), beats=False)

    async def _attempt(
        self, expert: Expert, call: "_Call", patience: "_Patience", connect_s: float | None
    ) -> ResponseStream:
        request, name = call.request, expert.name
        limit_s, progress = patience.timeout_s, patience.progress
        started = self._clock()
        completion_tokens = None
        body = request.body_for(expert.client.model, call.salt_for(expert))
        call.fingerprint = hash((len(body), body[:FINGERPRINTED_BYTES], body[-FINGERPRINTED_BYTES:]))
        expert.breaker.record_start()
        try:
            heartbeats = progress if patience.beats else None
            stream = await expert.client.open(
                "POST", request.path, call.headers, body, limit_s, connect_s, heartbeats
            )
            left_s = limit_s - (self._clock() - started)
            if not 200 <= stream.head.status < 300:
                raise await error_of(name, stream, left_s)
            call.began = True
            if request.stream:
                await read_first_event(name, stream, left_s)
            else:
                tokens = await read_complete(name, stream, left_s, request.endpoint, progress.limit_s)
                completion_tokens = None if tokens is None else tokens / request.sequences
        except BaseException as error:
            # While it responds to others it is only this request that takes long.
            timed_out = (
                progress.silent_s() >= patience.usual_s
                and not expert.state.is_cold
                and not expert.breaker.answered_since(started)
            )
            if call.failures and not isinstance(error, ApiError | ExpertUnreachable):
                # It failed at another expert as well: evidence against the request.
                expert.breaker.record_abandonment()
            else:
                expert.breaker.record_error(error, timed_out=timed_out, request=call.fingerprint)
            raise
        expert.breaker.record_success(call.fingerprint)
        seconds = self._clock() - started
        expert.latency.observe(_form(request), seconds, stream.connected_s, completion_tokens)
        _learn_load(expert, self._registry.sharing(expert), call, stream, seconds, completion_tokens)
        return stream

    def _learn_end(self, expert: Expert, met: Begun, started: float, first_s: float, tokens: float) -> None:
        """Learn from a stream that was read to its end."""
        expert.load.ended(met, self._clock() - started, tokens, first_s)

    def _record(self, expert: Expert, outcome: str, started: float, *, began: bool = False) -> Attempt:
        attempt = Attempt(expert.name, outcome, self._clock() - started, began)
        self._observe(attempt)
        return attempt


@dataclass(frozen=True, slots=True)
class _Patience:
    """How long one attempt may take."""

    timeout_s: float
    """Until the first byte of a stream, or the end of a non-streaming response."""
    usual_s: float
    """Silence for longer than this is unusual."""
    progress: Progress
    beats: bool
    """Whether the expert is to send heartbeats: then silence is bounded, and the time by the deadline."""


@dataclass(slots=True)
class _Call:
    """One request on its way through the ranking."""

    request: InferenceRequest
    order: CallOrder
    headers: Headers
    deadline: Deadline
    candidates: Sequence[Expert]
    max_attempts: int | None
    attempts: list[Attempt]
    began: bool = False
    """Whether the current attempt's 2xx response has begun."""
    fingerprint: int = 0
    """Identifies the body of the current attempt."""
    failures: int = 0
    """Attempts that failed after a replica accepted the request."""
    holds_slot: bool = False
    """Whether its caller acquired a slot of the first candidate."""
    is_retry: bool = False
    """Whether it is counted in the budget of retries."""
    last_error: ExpertError | ApiError | None = None
    met: Begun = NOTHING
    """The load that the current attempt met."""
    cache_salt: str | None = None
    owner: str = ""

    def salt_for(self, expert: Expert) -> str | None:
        """The salt, for an engine of this cluster that reads one."""
        reads_it = self.request.endpoint.cache_salt and expert.target.app is not None
        return self.cache_salt if reads_it else None

    def is_over(self) -> bool:
        spent = self.failures == MAX_FAILURES or len(self.attempts) == self.max_attempts
        return spent or self.deadline.left_s() <= 0

    def is_last_attempt(self) -> bool:
        return len(self.attempts) + 1 == self.max_attempts

    def is_last_failure(self) -> bool:
        return self.failures + 1 == MAX_FAILURES

    def retry_after_s(self, name: str) -> float:
        """Seconds until an expert's breaker lets a request through."""
        return next(expert.breaker.retry_after_s() for expert in self.candidates if expert.name == name)

    def is_cold(self, name: str) -> bool:
        return any(expert.state.is_cold for expert in self.candidates if expert.name == name)


def _learn_load(
    expert: Expert,
    of_its_engine: Sequence[Expert],
    call: "_Call",
    stream: ResponseStream,
    seconds: float,
    completion_tokens: float | None,
) -> None:
    load = getattr(stream.head, "load", None)  # a replica of an older version sends none
    if load is not None:
        for other in of_its_engine:
            other.load.reported(load, expert.slots.held, expert.state.running or 1)
    if not call.request.endpoint.bounds or expert.state.is_cold:
        return  # what generates nothing, and what waited for a start, says nothing of the speed
    if call.request.stream:
        expert.load.first_byte(call.met, seconds)
    elif completion_tokens is not None:
        expert.load.ended(call.met, seconds, completion_tokens, None)


def _no_response(call: _Call) -> ApiError:
    """The error of a request that no expert responded to."""
    error, attempts, deadline = call.last_error, call.attempts, call.deadline
    tried = ", ".join(f"{attempt.expert} ({attempt.outcome})" for attempt in attempts) or "none"
    if isinstance(error, ExpertTimeout) and call.is_cold(error.expert):
        return Unavailable(
            f"the expert {error.expert} is still starting; attempts: {tried}",
            ErrorCode.EXPERT_STARTING,
            None,
            STARTING_RETRY_S,
        )
    if deadline.left_s() <= 0 or isinstance(error, ExpertTimeout):
        return DeadlineExceeded(f"no expert responded within {deadline.seconds:g} s; attempts: {tried}")
    if isinstance(error, ApiError):
        return error
    if error is None:
        wait_s = min((expert.breaker.retry_after_s() for expert in call.candidates), default=0.0)
        names = ", ".join(call.order.ranking)
        return Unavailable(
            f"circuit breaker open for {names}", ErrorCode.EXPERT_UNAVAILABLE, None, max(1.0, wait_s)
        )
    wait_s = max((call.retry_after_s(attempt.expert) for attempt in attempts), default=0.0)
    code = (
        ErrorCode.EXPERT_OVERLOADED if isinstance(error, ExpertOverloaded) else ErrorCode.EXPERT_UNAVAILABLE
    )
    return Unavailable(
        f"no expert responded; attempts: {tried}", code, None, max(1.0, wait_s, error.retry_after_s or 0.0)
    )


def _most_tokens(expert: Expert, request: InferenceRequest) -> int | None:
    """The most tokens of a completion; `None` where neither the request nor a context window bounds it."""
    if not request.endpoint.bounds:
        return 0
    window = expert.target.context_window or expert.state.context_window
    if request.max_tokens is None and window is not None:
        return max(0, window - request.longest_tokens)
    return request.max_tokens


def _form(request: InferenceRequest) -> ResponseForm:
    return "streaming" if request.stream else "non_streaming"


def _outcome(error: ExpertError) -> str:
    names = {
        ExpertTimeout: "timeout",
        ExpertOverloaded: "overloaded",
        ExpertUnavailable: "unavailable",
        ExpertUnreachable: "unavailable",
        ExpertBroken: "broken",
    }
    return names.get(type(error), "failed")
