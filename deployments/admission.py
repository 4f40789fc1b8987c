"""A bounded number of places, and a bounded queue for them: interactive before batch, early refusals.

Pure asyncio with a clock passed in; knows neither HTTP nor experts. A place is held until it is
given back; who leaves the queue is out of it at once. Memory is bounded by `places + queue`.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from deployments.errors import ApiError, TooMany, Unavailable

Priority = Literal["interactive", "batch"]

INTERACTIVE_PER_BATCH = 4
"""While both wait, one batch request goes in after so many interactive ones: batch never starves."""
RATE_WINDOW = 128
"""Places given back that the drain rate is measured over."""
SHORTEST_RETRY_S = 0.5
LONGEST_RETRY_S = 60.0
"""Retry-After stays within the waits that clients keep to."""


@dataclass(eq=False, slots=True)
class _Waiter:
    priority: Priority
    granted: "asyncio.Future[None]"


@dataclass(slots=True)
class _Queues:
    interactive: "deque[_Waiter]" = field(default_factory=deque)
    batch: "deque[_Waiter]" = field(default_factory=deque)

    def of(self, priority: Priority) -> "deque[_Waiter]":
        return self.interactive if priority == "interactive" else self.batch

    def __len__(self) -> int:
        return len(self.interactive) + len(self.batch)


class DrainRate:
    """Places given back per second, over the last ones."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._at: deque[float] = deque(maxlen=RATE_WINDOW)

    def gave_back(self) -> None:
        self._at.append(self._clock())

    def per_s(self) -> float | None:
        """`None` before two were given back; falls while nothing more comes back."""
        if len(self._at) < 2:
            return None
        return (len(self._at) - 1) / max(self._clock() - self._at[0], 1e-3)


class Gate:
    """Places and the queue before them.

    Args:
        places: how many may be held at once.
        max_queued: how many may wait; 0 for none.
        max_wait_s: nobody waits longer.
        full_code: the error code of a refusal.
        what: what is full, for the message.
    """

    def __init__(
        self,
        places: int,
        *,
        max_queued: int,
        max_wait_s: float,
        full_code: str = "queue_full",
        what: str = "this system",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.resize(places, max_queued=max_queued, max_wait_s=max_wait_s)
        self._full_code = full_code
        self._what = what
        self._queues = _Queues()
        self._rate = DrainRate(clock)
        self._held = 0
        self._interactive_in_a_row = 0

    @property
    def held(self) -> int:
        """Places held now."""
        return self._held

    @property
    def queued(self) -> int:
        """Requests waiting now."""
        return len(self._queues)

    def resize(self, places: int, *, max_queued: int, max_wait_s: float) -> None:
        """Put new bounds in force; whoever is inside stays."""
        self._places, self._max_queued, self._max_wait_s = places, max_queued, max_wait_s

    def refuse_early(self) -> None:
        """For who has not said its priority yet: refuse if not even an interactive request could wait.

        Raises:
            TooMany: the queue is full.
        """
        if self._held >= self._places and len(self._queues) >= self._max_queued and not self._queues.batch:
            raise self._full()

    def try_enter(self) -> bool:
        """Take a place if one is free and nobody waits for it."""
        if self._held >= self._places or len(self._queues):
            return False
        self._held += 1
        return True

    async def enter(self, priority: Priority, wait_at_most_s: float) -> None:
        """Take a place, waiting for one if need be; who enters must `leave`.

        Args:
            wait_at_most_s: what is left of the request's deadline.

        Raises:
            TooMany: the queue is full, or too slow for this deadline.
            Unavailable: no place came free in time.
        """
        if self.try_enter():
            return
        wait_s = min(wait_at_most_s, self._max_wait_s)
        self._make_room(priority, wait_s)
        waiter = _Waiter(priority, asyncio.get_running_loop().create_future())
        self._queues.of(priority).append(waiter)
        try:
            async with asyncio.timeout(wait_s):
                await waiter.granted
        except BaseException as error:
            if waiter.granted.done() and not waiter.granted.cancelled() and not waiter.granted.exception():
                self.leave()  # granted at the very moment of leaving: the next one takes it
            elif waiter in self._queues.of(priority):
                self._queues.of(priority).remove(waiter)
            if isinstance(error, TimeoutError):
                raise Unavailable(
                    f"no place came free within {wait_s:.3g} s: {self._what} is overloaded",
                    "queue_timeout",
                    None,
                    self.retry_after_s(),
                ) from None
            raise

    def leave(self) -> None:
        """Give a place back; the next in the queue takes it."""
        self._rate.gave_back()
        self._held -= 1
        while self._held < self._places and (waiter := self._next()) is not None:
            if not waiter.granted.done():
                self._held += 1
                waiter.granted.set_result(None)

    def retry_after_s(self) -> float:
        """When a place for a newcomer can be expected, by the measured drain rate."""
        rate = self._rate.per_s()
        wait_s = 1.0 if rate is None else (len(self._queues) + 1) / rate
        return min(LONGEST_RETRY_S, max(SHORTEST_RETRY_S, wait_s))

    def _make_room(self, priority: Priority, wait_s: float) -> None:
        """Refuse who would wait in vain; an interactive request displaces the last batch one."""
        rate = self._rate.per_s()
        ahead = len(self._queues) if priority == "batch" else len(self._queues.interactive)
        if rate is not None and len(self._queues) and (ahead + 1) / rate > wait_s:
            raise self._full()
        if len(self._queues) < self._max_queued:
            return
        if priority == "batch" or not self._queues.batch:
            raise self._full()
        displaced = self._queues.batch.pop()
        if not displaced.granted.done():
            displaced.granted.set_exception(self._full())

    def _next(self) -> _Waiter | None:
        batch_due = self._interactive_in_a_row >= INTERACTIVE_PER_BATCH or not self._queues.interactive
        if self._queues.batch and batch_due:
            self._interactive_in_a_row = 0
            return self._queues.batch.popleft()
        if self._queues.interactive:
            self._interactive_in_a_row += 1
            return self._queues.interactive.popleft()
        return None

    def _full(self) -> ApiError:
        return TooMany(
            f"{self._what} is overloaded: {self._held} requests are being answered and "
            f"{len(self._queues)} wait",
            self._full_code,
            None,
            self.retry_after_s(),
        )
