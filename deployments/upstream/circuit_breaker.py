"""The circuit breaker of one expert: which failures count, when it opens, when it lets a probe through.

Pure state machine with a clock passed in; one per expert and ingress replica.
"""

import time
from collections import deque
from collections.abc import Callable
from typing import Literal

from deployments.contracts.errors import (
    ApiError,
    ExpertBroken,
    ExpertOverloaded,
    ExpertUnavailable,
    ExpertUnreachable,
)

WINDOW = 10
"""Latest outcomes that decide about opening…"""
WINDOW_S = 600.0
"""…none of them older than this."""
FAILURES_TO_OPEN = 5
"""Failures among them, of so many distinct requests, that open the breaker."""
OPEN_S = 2.0
"""How long it stays open the first time; doubled with every failed probe."""
MAX_OPEN_S = 30.0
PROBE_LOST_S = 60.0
"""A probe without a result is forgotten after this long."""

BreakerState = Literal["closed", "open", "half_open"]


class CircuitBreaker:
    """Counts failures of one expert, and stops requests to it for a while after too many.

    One request that fails wherever it goes is one failure, however often it is repeated: else a request
    that kills engines would close every expert to everyone.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._outcomes: deque[tuple[float, bool, int | None]] = deque(maxlen=WINDOW)
        """When, whether it failed, and which request did."""
        self._opened_at: float | None = None
        self._open_s = OPEN_S
        self._probe_at: float | None = None
        self._answered_at: float | None = None
        self._closed_by: int | None = None
        """The request whose response closed it last…"""
        self._open_s_before = OPEN_S
        """…and for how long it had been open."""

    @property
    def state(self) -> BreakerState:
        """`closed`, `open`, or `half_open` once a probe may go through."""
        if self._opened_at is None:
            return "closed"
        return "open" if self._clock() < self._opened_at + self._open_s else "half_open"

    def available(self) -> bool:
        """Whether a request may be sent; a half-open breaker lets one probe through at a time."""
        if self.state == "closed":
            return True
        if self.state == "open":
            return False
        return self._probe_at is None or self._clock() - self._probe_at > PROBE_LOST_S

    def retry_after_s(self) -> float:
        """Seconds until the breaker lets a probe through; 0 when it is not open."""
        return 0.0 if self._opened_at is None else max(0.0, self._opened_at + self._open_s - self._clock())

    def answered_since(self, time_s: float) -> bool:
        """Whether the expert responded to any request since then."""
        return self._answered_at is not None and self._answered_at >= time_s

    def record_start(self) -> None:
        """A request is sent."""
        if self.state == "half_open":
            self._probe_at = self._clock()

    def record_success(self, request: int | None = None) -> None:
        """The expert responded, or began to.

        Args:
            request: as of `record_error`.
        """
        if self._opened_at is not None:
            self._outcomes.clear()
            self._closed_by, self._open_s_before = request, self._open_s
        elif request == self._closed_by:
            self._closed_by = None  # the same body came again: what breaks from now on is no probe
        self._answered_at = self._clock()
        self._outcomes.append((self._answered_at, False, None))
        self._opened_at = None
        self._open_s = OPEN_S
        self._probe_at = None

    def record_error(self, error: BaseException, *, timed_out: bool, request: int | None = None) -> None:
        """The attempt ended in an error.

        Args:
            error: what the attempt raised, a cancellation included.
            timed_out: whether the expert was silent for longer than it usually is, to every request.
            request: identifies its body; `None` counts as one that never came before.
        """
        if isinstance(error, ExpertOverloaded):
            self.record_abandonment()  # an overloaded expert works
        elif isinstance(error, ExpertUnreachable):
            self.record_failure()  # whatever was requested: no replica saw it
        elif isinstance(error, ExpertUnavailable | ExpertBroken):
            self.record_failure(request)
        elif isinstance(error, ApiError):
            self.record_success()  # the expert works: it rejected the request itself
        elif timed_out:
            self.record_failure(request)
        else:
            # The request's own deadline was short, or the client left: no fault of the expert.
            self.record_abandonment()

    def record_failure(self, request: int | None = None) -> None:
        """The expert failed or was too slow.

        Args:
            request: as of `record_error`.
        """
        now = self._clock()
        if request is not None:
            # Removed and put last: a request that is repeated leaves space for the others' outcomes.
            kept = [outcome for outcome in self._outcomes if outcome[2] != request]
            self._outcomes = deque(kept, maxlen=WINDOW)
        self._outcomes.append((now, True, request))
        if self.state == "half_open":
            self._open_s = min(MAX_OPEN_S, self._open_s * 2)
            self._open()
        elif self.state == "closed" and self._failures_since(now - WINDOW_S) >= FAILURES_TO_OPEN:
            self._open()

    def was_closed_by(self, request: int) -> bool:
        """Whether this request was the last successful probe, with no success of it since."""
        return self.state == "closed" and request == self._closed_by

    def record_break(self, request: int) -> None:
        """A response broke off after its first byte, which had counted as a success.

        Where that byte had closed the breaker, it is open again as after any failed probe.

        Args:
            request: as of `record_error`.
        """
        if self.was_closed_by(request):
            self._open_s = min(MAX_OPEN_S, self._open_s_before * 2)
            self._open()
            return
        for outcome in reversed(self._outcomes):
            if not outcome[1]:
                self._outcomes.remove(outcome)
                break
        self.record_failure(request)

    def record_abandonment(self) -> None:
        """The attempt ended without evidence for or against the expert; the next may be the probe."""
        self._probe_at = None

    def _failures_since(self, time_s: float) -> int:
        return sum(failed for at, failed, _ in self._outcomes if at >= time_s)

    def _open(self) -> None:
        self._opened_at = self._clock()
        self._probe_at = None
