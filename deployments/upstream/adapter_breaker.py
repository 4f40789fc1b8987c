"""The circuit breaker of an expert that is an adapter: its engine's, and one for the adapter alone.

A replica that is away says nothing of an adapter, and an adapter that fails nothing of its engine: each
failure counts in one of the two breakers, and a request passes both.
"""

from deployments.contracts.errors import ExpertBroken, ExpertUnavailable
from deployments.upstream.circuit_breaker import BreakerState, CircuitBreaker

WORST_FIRST: tuple[BreakerState, ...] = ("open", "half_open", "closed")


class AdapterBreaker:
    """Has the methods of `CircuitBreaker`.

    Args:
        engine: the breaker that all experts of the engine share.
        own: the adapter's.
    """

    def __init__(self, engine: CircuitBreaker, own: CircuitBreaker) -> None:
        self.engine = engine
        self._own = own

    @property
    def state(self) -> BreakerState:
        """The worse of the two states."""
        return min(self.engine.state, self._own.state, key=WORST_FIRST.index)

    def available(self) -> bool:
        """Whether a request may be sent."""
        return self.engine.available() and self._own.available()

    def retry_after_s(self) -> float:
        """Seconds until both let a probe through."""
        return max(self.engine.retry_after_s(), self._own.retry_after_s())

    def answered_since(self, time_s: float) -> bool:
        """Whether the adapter responded to any request since then; others of its engine do not count."""
        return self._own.answered_since(time_s)

    def record_start(self) -> None:
        """A request is sent."""
        self.engine.record_start()
        self._own.record_start()

    def record_success(self, request: int | None = None) -> None:
        """The adapter responded, and so did its engine."""
        self.engine.record_success(request)
        self._own.record_success(request)

    def record_error(self, error: BaseException, *, timed_out: bool, request: int | None = None) -> None:
        """The attempt ended in an error; the arguments are those of `CircuitBreaker.record_error`."""
        if isinstance(error, ExpertUnavailable):
            self.engine.record_error(error, timed_out=timed_out, request=request)
            self._own.record_abandonment()
        elif isinstance(error, ExpertBroken) or timed_out:
            self.engine.record_abandonment()
            self._own.record_error(error, timed_out=timed_out, request=request)
        else:
            self.engine.record_error(error, timed_out=timed_out, request=request)
            self._own.record_error(error, timed_out=timed_out, request=request)

    def record_break(self, request: int) -> None:
        """A response broke off after its first byte, which may have been the engine's successful probe."""
        if self.engine.was_closed_by(request):
            self.engine.record_break(request)
        self._own.record_break(request)

    def record_abandonment(self) -> None:
        """The attempt ended without evidence for or against the adapter."""
        self.engine.record_abandonment()
        self._own.record_abandonment()
