"""A bounded number of places, and a bounded queue for them: interactive before batch, early refusals.

Pure asyncio with a clock passed in; knows neither HTTP nor experts. A place is held until it is
given back; who leaves the queue is out of it at once. Memory is bounded by `places + queue`.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from deployments.contracts.errors import ApiError, ErrorCode, TooMany, Unavailable

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
    granted: "asyncio.Future[AdmissionQueue]"
    """The gate that let it in; it may stand before several."""


@dataclass(slots=True)
class _Queues:
    interactive: "deque[_Waiter]" = field(default_factory=deque)
    batch: "deque[_Waiter]" = field(default_factory=deque)

    def of(self, priority: Priority) -> "deque[_Waiter]":
        return self.interactive if priority == "interactive" else self.batch

    def __len__(self) -> int:
        return len(self.interactive) + len(self.batch)


class DrainRate:
    """Places given back per second while at least half are taken, over the last ones.

    Idle time does not count: it says nothing of how fast a full house empties.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._busy_s = 0.0
        self._busy_since: float | None = None
        self._at: deque[float] = deque(maxlen=RATE_WINDOW)

    def taken(self, held: int, slots: int) -> None:
        """So many of all places are taken from now on."""
        busy = 2 * held >= slots
        if busy and self._busy_since is None:
            self._busy_since = self._clock()
        elif not busy and self._busy_since is not None:
            self._busy_s, self._busy_since = self._seconds(), None

    def gave_back(self) -> None:
        if self._busy_since is not None:
            self._at.append(self._seconds())

    def per_s(self) -> float | None:
        """`None` before two were given back; falls while nothing more comes back."""
        if len(self._at) < 2:
            return None
        return (len(self._at) - 1) / max(self._seconds() - self._at[0], 1e-3)

    def _seconds(self) -> float:
        """How long at least half have been taken, in all."""
        return self._busy_s + (0.0 if self._busy_since is None else self._clock() - self._busy_since)


class AdmissionQueue:
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
        slots: int,
        *,
        max_queued: int,
        max_wait_s: float,
        full_code: ErrorCode = ErrorCode.QUEUE_FULL,
        what: str = "this system",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._full_code = full_code
        self.what = what
        self._queues = _Queues()
        self._rate = DrainRate(clock)
        self._held = 0
        self.resize(slots, max_queued=max_queued, max_wait_s=max_wait_s)
        self._interactive_in_a_row = 0

    @property
    def held(self) -> int:
        """Places held now."""
        return self._held

    @property
    def queued(self) -> int:
        """Requests waiting now."""
        return len(self._queues)

    def drain_per_s(self) -> float | None:
        """Places given back per second while at least half are taken; `None` before it is known."""
        return self._rate.per_s()

    def resize(self, slots: int, *, max_queued: int, max_wait_s: float) -> None:
        """Put new bounds in force; whoever is inside stays."""
        self._slots, self._max_queued, self.max_wait_s = slots, max_queued, max_wait_s
        self._rate.taken(self._held, slots)

    def refuse_early(self) -> None:
        """For who has not said its priority yet: refuse if not even an interactive request could wait.

        Raises:
            TooMany: the queue is full.
        """
        if self._held >= self._slots and len(self._queues) >= self._max_queued and not self._queues.batch:
            raise self.full()

    def try_acquire(self) -> bool:
        """Take a place if one is free and nobody waits for it."""
        if self._held >= self._slots or len(self._queues):
            return False
        self._held += 1
        self._rate.taken(self._held, self._slots)
        return True

    async def acquire(self, priority: Priority, wait_at_most_s: float) -> None:
        """Take a place, waiting for one if need be; who enters must `release`.

        Args and errors as `acquire_any` has them.
        """
        await acquire_any((self,), priority, wait_at_most_s)

    def release(self) -> None:
        """Give a place back; the next in the queue takes it."""
        self._rate.gave_back()
        self._held -= 1
        while self._held < self._slots and (waiter := self._next()) is not None:
            if not waiter.granted.done():
                self._held += 1
                waiter.granted.set_result(self)
        self._rate.taken(self._held, self._slots)

    def retry_after_s(self) -> float:
        """When a place for a newcomer can be expected, by the measured drain rate."""
        rate = self._rate.per_s()
        wait_s = 1.0 if rate is None else (len(self._queues) + 1) / rate
        return min(LONGEST_RETRY_S, max(SHORTEST_RETRY_S, wait_s))

    def line_up(self, waiter: _Waiter) -> bool:
        """Join the queue, if it has room; an interactive request displaces the last batch one."""
        batch, full = self._queues.batch, len(self._queues) >= self._max_queued
        if full and (waiter.priority == "batch" or not batch):
            return False
        if full and not (displaced := batch.pop()).granted.done():
            displaced.granted.set_exception(self.full())
        self._queues.of(waiter.priority).append(waiter)
        return True

    def fall_out(self, waiter: _Waiter) -> None:
        """Leave the queue, if in it."""
        if waiter in (queue := self._queues.of(waiter.priority)):
            queue.remove(waiter)

    def ahead_of(self, priority: Priority) -> int:
        """Requests waiting that would go in before a newcomer."""
        return len(self._queues if priority == "batch" else self._queues.interactive)

    def _next(self) -> _Waiter | None:
        batch_due = self._interactive_in_a_row >= INTERACTIVE_PER_BATCH or not self._queues.interactive
        if self._queues.batch and batch_due:
            self._interactive_in_a_row = 0
            return self._queues.batch.popleft()
        if self._queues.interactive:
            self._interactive_in_a_row += 1
            return self._queues.interactive.popleft()
        return None

    def full(self) -> ApiError:
        """The refusal of who finds no room."""
        return TooMany(
            f"{self.what} is overloaded: {self._held} requests are being answered and "
            f"{len(self._queues)} wait",
            self._full_code,
            None,
            self.retry_after_s(),
        )


async def acquire_any(
    gates: Sequence[AdmissionQueue], priority: Priority, wait_at_most_s: float
) -> AdmissionQueue:
    """Take a place at the first of several gates that has one, waiting for it if need be.

    Where more than one has a place, the first is taken. Who enters must `release` the gate returned.

    Args:
        wait_at_most_s: what is left of the request's deadline.

    Raises:
        TooMany: every queue is full, or together they are too slow for this deadline.
        Unavailable: no place came free in time.
    """
    for gate in gates:
        if gate.try_acquire():
            return gate
    wait_s = min(wait_at_most_s, max(gate.max_wait_s for gate in gates))
    if _in_vain(gates, priority, wait_s):
        raise gates[0].full()
    waiter = _Waiter(priority, asyncio.get_running_loop().create_future())
    if not [gate for gate in gates if gate.line_up(waiter)]:
        raise gates[0].full()
    try:
        async with asyncio.timeout(wait_s):
            return await waiter.granted
    except BaseException as error:
        if waiter.granted.done() and not waiter.granted.cancelled() and not waiter.granted.exception():
            waiter.granted.result().release()  # granted at the very moment of leaving: the next one takes it
        if isinstance(error, TimeoutError):
            raise Unavailable(
                f"no place came free within {wait_s:.3g} s: {_named(gates)} overloaded",
                ErrorCode.QUEUE_TIMEOUT,
                None,
                min(gate.retry_after_s() for gate in gates),
            ) from None
        raise
    finally:
        for gate in gates:
            gate.fall_out(waiter)


def _in_vain(gates: Sequence[AdmissionQueue], priority: Priority, wait_s: float) -> bool:
    """Whether those who wait already will take all the places that come free in that time."""
    rates = [gate.drain_per_s() for gate in gates]
    known = [rate for rate in rates if rate is not None]
    if len(known) < len(rates) or not all(gate.queued for gate in gates):
        return False
    # Who waits for several gates stands in each queue: the longest counts, not the sum.
    ahead = max(gate.ahead_of(priority) for gate in gates)
    return (ahead + 1) / sum(known) > wait_s


def _named(gates: Sequence[AdmissionQueue]) -> str:
    return " and ".join(gate.what for gate in gates) + (" is" if len(gates) == 1 else " are")
