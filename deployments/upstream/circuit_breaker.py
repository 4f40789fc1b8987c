"""How each expert has been doing: a circuit breaker, and the waits to connect and for a first byte, learnt.

Pure state machine with a clock passed in; one per expert and ingress replica.
"""

import time
from collections.abc import Callable
from typing import Literal

FAILURES_TO_OPEN = 5
"""Failures in a row before the breaker opens."""
OPEN_S = 2.0
"""How long it stays open the first time; doubled with every failed probe."""
OPEN_AT_MOST_S = 30.0
PROBE_LOST_S = 60.0
"""A probe that never reported is forgotten after this long."""
SMOOTHING = 0.1
"""Weight of the newest observation in the running means."""
PATIENCE = 8.0
"""An expert may take this many times its usual wait before the next is asked…"""
LEAST_PATIENCE_S = {"stream": 5.0, "whole": 30.0}
"""…but never less than this: short waits are noisy, and whole answers differ in length."""
LEAST_CONNECT_S = 3.0
"""A replica that lives takes a request within milliseconds; so long is a busy machine given."""
LEARNT_AFTER = 20
"""Answers before the learnt limit replaces the configured one."""

Answer = Literal["stream", "whole"]
"""What is waited for: the first byte of a stream, or a whole answer."""
BreakerState = Literal["closed", "open", "half_open"]


class UsualWait:
    """Running mean and mean deviation of a wait, in seconds."""

    def __init__(self) -> None:
        self.count = 0
        self.mean_s = 0.0
        self.deviation_s = 0.0

    @property
    def patience_s(self) -> float:
        """Longer than this is unusual."""
        return PATIENCE * (self.mean_s + 2 * self.deviation_s)

    def observe(self, seconds: float) -> None:
        self.count += 1
        if self.count == 1:
            self.mean_s = seconds
            return
        self.deviation_s += SMOOTHING * (abs(seconds - self.mean_s) - self.deviation_s)
        self.mean_s += SMOOTHING * (seconds - self.mean_s)


class CircuitBreaker:
    """One expert's breaker and its usual time to first byte."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures = 0
        self._opened_at: float | None = None
        self._open_s = OPEN_S
        self._probe_at: float | None = None
        self._waits: dict[Answer, UsualWait] = {"stream": UsualWait(), "whole": UsualWait()}
        self._connects = UsualWait()

    @property
    def state(self) -> BreakerState:
        if self._opened_at is None:
            return "closed"
        return "open" if self._clock() < self._opened_at + self._open_s else "half_open"

    @property
    def ttft_ms(self) -> float | None:
        """The usual wait for a stream's first byte, in milliseconds; `None` before any."""
        wait = self._waits["stream"]
        return wait.mean_s * 1000 if wait.count else None

    def available(self) -> bool:
        """Whether a request may go there; half-open lets one probe through at a time."""
        if self.state == "closed":
            return True
        if self.state == "open":
            return False
        return self._probe_at is None or self._clock() - self._probe_at > PROBE_LOST_S

    def retry_after_s(self) -> float:
        """Seconds until the breaker lets a probe through; 0 when it is not open."""
        return 0.0 if self._opened_at is None else max(0.0, self._opened_at + self._open_s - self._clock())

    def limit_s(self, answer: Answer, configured_s: float) -> float:
        """How long to wait for this expert before the next in the ranking is asked."""
        wait = self._waits[answer]
        if wait.count < LEARNT_AFTER:
            return configured_s
        return min(configured_s, max(LEAST_PATIENCE_S[answer], wait.patience_s))

    def connect_limit_s(self) -> float:
        """How long a replica may take to accept a request before the next in the ranking is asked."""
        return max(LEAST_CONNECT_S, self._connects.patience_s)

    def started(self) -> None:
        """A request is on its way."""
        if self.state == "half_open":
            self._probe_at = self._clock()

    def succeeded(self, answer: Answer, seconds: float, connected_s: float = 0.0) -> None:
        """It answered after so many seconds, and had taken the request after `connected_s`."""
        self.alive()
        self._waits[answer].observe(seconds)
        self._connects.observe(connected_s)

    def alive(self) -> None:
        """It spoke, if only to refuse the request."""
        self._failures = 0
        self._opened_at = None
        self._open_s = OPEN_S
        self._probe_at = None

    def failed(self) -> None:
        """It failed or was too slow."""
        self._failures += 1
        if self.state == "half_open":
            self._open_s = min(OPEN_AT_MOST_S, self._open_s * 2)
            self._open()
        elif self.state == "closed" and self._failures >= FAILURES_TO_OPEN:
            self._open()

    def abandoned(self) -> None:
        """The caller left before anything could be learnt; a probe's place is free again."""
        self._probe_at = None

    def _open(self) -> None:
        self._opened_at = self._clock()
        self._probe_at = None
