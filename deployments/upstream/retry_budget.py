"""A budget of retries over all requests of an ingress replica, as Envoy has it.

While many requests fail, their second attempts are a load of their own: only a share of the requests in
flight is retried at once, and the others wait for their turn.
"""

import time
from collections.abc import Callable

from deployments.contracts.deadlines import Deadline
from deployments.contracts.errors import ApiError
from deployments.limits.admission import AdmissionQueue, Priority, acquire_within

SHARE = 0.5
"""Retries at once, of all requests in flight…"""
MIN_RETRIES = 16
"""…but always as many as this."""
MAX_QUEUED = 1024
MAX_WAIT_S = 3600.0
"""Longer than any deadline: that of the request counts."""


class RetryBudget:
    """Retries that run, and those that wait.

    Args:
        in_flight: returns the requests in flight, without those that retry.
        clock: monotonic seconds.
    """

    def __init__(self, in_flight: Callable[[], int], clock: Callable[[], float] = time.monotonic) -> None:
        self._in_flight = in_flight
        self._retries = AdmissionQueue(
            MIN_RETRIES, max_queued=MAX_QUEUED, max_wait_s=MAX_WAIT_S, what="retries", clock=clock
        )

    @property
    def running(self) -> int:
        """Retries at present."""
        return self._retries.held

    async def acquire(self, deadline: Deadline, priority: Priority) -> bool:
        """Wait for the turn of a retry; whether it came. The caller must `release` it."""
        self._resize()
        try:
            await acquire_within(deadline, (self._retries,), priority)
        except ApiError:
            return False
        return True

    def release(self) -> None:
        """End a retry; the next one begins."""
        self._resize()
        self._retries.release()

    def _resize(self) -> None:
        active = self._in_flight() + self._retries.held + self._retries.queued
        slots = max(MIN_RETRIES, int(SHARE * active))
        self._retries.resize(slots, max_queued=MAX_QUEUED, max_wait_s=MAX_WAIT_S)
