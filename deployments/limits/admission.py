"""A bounded number of slots, and a bounded queue for them: interactive before batch, fair between keys.

Pure asyncio with a clock passed in; knows neither HTTP nor experts. A slot is held until its release;
a cancelled request leaves the queue at once. Memory is bounded by `slots + max_queued`.
"""

import asyncio
import itertools
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from deployments.contracts.deadlines import Deadline
from deployments.contracts.errors import ApiError, DeadlineExceeded, ErrorCode, TooMany, Unavailable
from deployments.limits.fair_queue import FairQueue

Priority = Literal["interactive", "batch"]

INTERACTIVE_PER_BATCH = 4
"""While both wait, one batch request is admitted after so many interactive ones: batch never starves."""
RATE_WINDOW = 128
"""Releases that the drain rate is measured over."""
SHORTEST_RETRY_S = 0.5
LONGEST_RETRY_S = 60.0
"""Retry-After stays within the waits that clients respect."""
_numbers = itertools.count()


@dataclass(eq=False, slots=True)
class _Waiter:
    owner: str
    number: int
    priority: Priority
    granted: "asyncio.Future[AdmissionQueue]"
    """The queue that granted a slot; a request can wait in several."""


class _Queues:
    def __init__(self, held: Mapping[str, int]) -> None:
        self.interactive: FairQueue[_Waiter] = FairQueue(held)
        self.batch: FairQueue[_Waiter] = FairQueue(held)

    def of(self, priority: Priority) -> FairQueue[_Waiter]:
        return self.interactive if priority == "interactive" else self.batch

    def __len__(self) -> int:
        return len(self.interactive) + len(self.batch)


class DrainRate:
    """Releases per second while at least half of the slots are held, over the last ones.

    Idle time does not count: it does not show how fast a full queue drains.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._busy_s = 0.0
        self._busy_since: float | None = None
        self._at: deque[float] = deque(maxlen=RATE_WINDOW)

    def update(self, held: int, slots: int) -> None:
        """Note the slots that are held from now on."""
        busy = 2 * held >= slots
        if busy and self._busy_since is None:
            self._busy_since = self._clock()
        elif not busy and self._busy_since is not None:
            self._busy_s, self._busy_since = self._seconds(), None

    def record_release(self) -> None:
        """Note one release."""
        if self._busy_since is not None:
            self._at.append(self._seconds())

    def per_s(self) -> float | None:
        """Return the rate; `None` before two releases. It falls while no more slots are released."""
        if len(self._at) < 2:
            return None
        return (len(self._at) - 1) / max(self._seconds() - self._at[0], 1e-3)

    def _seconds(self) -> float:
        """Return the time for which at least half of the slots were held, in all."""
        return self._busy_s + (0.0 if self._busy_since is None else self._clock() - self._busy_since)


class AdmissionQueue:
    """Slots and the queue for them.

    Args:
        slots: slots that can be held at once.
        max_queued: requests that can wait; 0 for none.
        max_wait_s: the longest wait.
        full_code: the error code of a rejection.
        what: the subject of the error message.
        clock: monotonic seconds.
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
        self._held_by: Counter[str] = Counter()
        self._queues = _Queues(self._held_by)
        self._rate = DrainRate(clock)
        self._held = 0
        self.resize(slots, max_queued=max_queued, max_wait_s=max_wait_s)
        self._interactive_in_a_row = 0

    @property
    def held(self) -> int:
        """Slots held now."""
        return self._held

    @property
    def slots(self) -> int:
        """Slots that can be held at once."""
        return self._slots

    @property
    def queued(self) -> int:
        """Requests that wait now."""
        return len(self._queues)

    def drain_per_s(self) -> float | None:
        """Return releases per second while at least half of the slots are held; `None` before it is known."""
        return self._rate.per_s()

    def resize(self, slots: int, *, max_queued: int, max_wait_s: float) -> None:
        """Put new bounds into effect; slots that are held stay held."""
        self._slots, self._max_queued, self.max_wait_s = slots, max_queued, max_wait_s
        self._rate.update(self._held, slots)

    def reject_early(self, owner: str = "") -> None:
        """Reject a request of unknown priority if not even an interactive one of its owner could wait.

        Raises:
            TooMany: the queue is full.
        """
        queues = self._queues
        full = self._held >= self._slots and len(queues) >= self._max_queued
        if full and not queues.batch and not queues.interactive.displaces(owner):
            raise self.full()

    def try_acquire(self, owner: str = "") -> bool:
        """Acquire a slot if one is free and no request waits for it."""
        if self._held >= self._slots or len(self._queues):
            return False
        self._hold(owner, 1)
        return True

    async def acquire(self, priority: Priority, max_wait_s: float, owner: str = "") -> None:
        """Acquire a slot, waiting for one if need be; the caller must `release` it.

        Arguments and errors are those of `acquire_any`.
        """
        await acquire_any((self,), priority, max_wait_s, owner)

    def occupy(self, sequences: int, owner: str = "") -> int:
        """Hold as many slots as a request has sequences, once it has acquired one.

        It is admitted as soon as one is free, so that a large request does not starve; those after it
        wait until all fit.

        Returns:
            The slots that it holds now, at most all, for its `release`.
        """
        count = max(1, min(sequences, self._slots))
        self._hold(owner, count - 1)
        return count

    def release(self, count: int = 1, owner: str = "") -> None:
        """Release the slots of a request; the next requests in the queue get them."""
        self._rate.record_release()
        self._hold(owner, -count)
        while self._held < self._slots and (waiter := self._next()) is not None:
            if not waiter.granted.done():
                self._hold(waiter.owner, 1)
                waiter.granted.set_result(self)

    def _hold(self, owner: str, count: int) -> None:
        self._held += count
        self._held_by[owner] += count
        if self._held_by[owner] <= 0:
            del self._held_by[owner]
        self._rate.update(self._held, self._slots)

    def retry_after_s(self) -> float:
        """Return the time until a new request can expect a slot, by the measured drain rate."""
        rate = self._rate.per_s()
        wait_s = 1.0 if rate is None else (len(self._queues) + 1) / rate
        return min(LONGEST_RETRY_S, max(SHORTEST_RETRY_S, wait_s))

    def enqueue(self, waiter: _Waiter) -> bool:
        """Join the queue, if it has capacity.

        In a full one, an interactive request displaces the last batch one, and each request one of its kind
        where another owner has more of them.
        """
        queues = self._queues
        if len(queues) >= self._max_queued:
            if waiter.priority == "interactive" and queues.batch:
                displaced = queues.batch.displace()
            elif queues.of(waiter.priority).displaces(waiter.owner):
                displaced = queues.of(waiter.priority).displace()
            else:
                return False
            if not displaced.granted.done():
                displaced.granted.set_exception(self.full())
        queues.of(waiter.priority).append(waiter)
        return True

    def dequeue(self, waiter: _Waiter) -> None:
        """Leave the queue, if in it."""
        self._queues.of(waiter.priority).remove(waiter)

    def ahead_of(self, priority: Priority, owner: str = "") -> int:
        """Return about how many waiting requests would be admitted before a new one."""
        queues = self._queues
        if priority == "interactive":
            return queues.interactive.ahead_of(owner)
        return len(queues.interactive) + queues.batch.ahead_of(owner)

    def _next(self) -> _Waiter | None:
        batch_due = self._interactive_in_a_row >= INTERACTIVE_PER_BATCH or not self._queues.interactive
        if self._queues.batch and batch_due:
            self._interactive_in_a_row = 0
            return self._queues.batch.next()
        if self._queues.interactive:
            self._interactive_in_a_row += 1
            return self._queues.interactive.next()
        return None

    def full(self) -> ApiError:
        """Return the error for a request that the queue has no capacity for."""
        return TooMany(
            f"{self.what} is overloaded: {self._held} requests are in flight and {len(self._queues)} wait",
            self._full_code,
            None,
            self.retry_after_s(),
        )


async def acquire_any(
    queues: Sequence[AdmissionQueue], priority: Priority, max_wait_s: float, owner: str = ""
) -> AdmissionQueue:
    """Acquire a slot of the first of several queues that has one, waiting for it if need be.

    Args:
        queues: the queues; the first with a free slot counts.
        priority: the request's priority.
        max_wait_s: time left until the request's deadline.
        owner: the id of the request's key; the others of a key do not delay it.

    Returns:
        The queue of the slot; the caller must `release` it.

    Raises:
        TooMany: every queue is full, or together they are too slow for this deadline.
        Unavailable: no slot came free in time.
    """
    for queue in queues:
        if queue.try_acquire(owner):
            return queue
    wait_s = min(max_wait_s, max(queue.max_wait_s for queue in queues))
    if _is_futile(queues, priority, wait_s, owner):
        raise queues[0].full()
    waiter = _Waiter(owner, next(_numbers), priority, asyncio.get_running_loop().create_future())
    if not [queue for queue in queues if queue.enqueue(waiter)]:
        raise queues[0].full()
    try:
        async with asyncio.timeout(wait_s):
            return await waiter.granted
    except BaseException as error:
        if waiter.granted.done() and not waiter.granted.cancelled() and not waiter.granted.exception():
            waiter.granted.result().release(1, owner)  # granted while leaving: the next request gets it
        if isinstance(error, TimeoutError):
            raise Unavailable(
                f"no slot came free within {wait_s:.3g} s: {_named(queues)} overloaded",
                ErrorCode.QUEUE_TIMEOUT,
                None,
                min(queue.retry_after_s() for queue in queues),
            ) from None
        raise
    finally:
        for queue in queues:
            queue.dequeue(waiter)


async def acquire_within(
    deadline: Deadline, queues: Sequence[AdmissionQueue], priority: Priority, owner: str = ""
) -> AdmissionQueue:
    """Acquire a slot as `acquire_any` does, within a request's deadline.

    Raises:
        DeadlineExceeded: no slot came free within the deadline.
    """
    try:
        return await acquire_any(queues, priority, deadline.left_s(), owner)
    except Unavailable as error:
        if deadline.left_s() <= 0:
            why = f"no slot came free within the deadline of {deadline.seconds:g} s"
            raise DeadlineExceeded(why) from error
        raise


def _is_futile(queues: Sequence[AdmissionQueue], priority: Priority, wait_s: float, owner: str) -> bool:
    """Whether requests that wait already will take all the slots that come free in that time."""
    rates = [queue.drain_per_s() for queue in queues]
    known = [rate for rate in rates if rate is not None]
    if len(known) < len(rates) or not all(queue.queued for queue in queues):
        return False
    # A request that waits for several slots is in each queue: the longest counts, not the sum.
    ahead = max(queue.ahead_of(priority, owner) for queue in queues)
    return (ahead + 1) / sum(known) > wait_s


def _named(queues: Sequence[AdmissionQueue]) -> str:
    return " and ".join(queue.what for queue in queues) + (" is" if len(queues) == 1 else " are")
