"""The bytes of all request bodies that one process holds, bounded: a body that does not fit waits.

Serve queues a body without any bound, so the bytes are counted at its boundary, before Serve reads them,
and a client that has to wait is simply not read from. Pure asyncio; knows no HTTP.
"""

import asyncio
from collections import deque

from deployments.contracts.errors import ErrorCode, Unavailable

FREE_BYTES = 64 * 1024
"""A body up to this size never waits: small requests shall not queue behind large ones."""


class BodyBudget:
    """Bytes of all bodies in flight in this process.

    A body takes bytes as they come: a declared length alone takes none, or a few clients that send nothing
    could take them all. So that bodies which have come in part do not wait for each other, the first of
    those that wait may exceed the limit, until its request ends.

    Args:
        limit: the bound.
        max_body_bytes: the largest body, by which the bound may be exceeded.
        max_wait_s: the longest wait of a body.
    """

    def __init__(self, limit: int, max_body_bytes: int, max_wait_s: float) -> None:
        self.limit = limit
        self.max_body_bytes = max_body_bytes
        self.max_wait_s = max_wait_s
        self.held = 0
        self._exceeding: HeldBytes | None = None
        self._waiting: deque[tuple[HeldBytes, int, asyncio.Future[None]]] = deque()
        self._by_request: dict[str, HeldBytes] = {}

    def register(self, held: "HeldBytes") -> None:
        """Let `hold` return these bytes for their request."""
        self._by_request[held.request_id] = held

    def hold(self, request_id: str) -> "HeldBytes":
        """Return the bytes of a request's body: those counted before in this process, else none yet."""
        return self._by_request.get(request_id) or HeldBytes(self, request_id)

    async def take(self, held: "HeldBytes", size: int) -> None:
        """Count more bytes of a body, once they fit.

        Raises:
            Unavailable: they do not fit within `max_wait_s`.
        """
        is_free = held.size + size <= FREE_BYTES or self._exceeding is held
        if is_free or (not self._waiting and self._fits(held, size)):
            self._add(held, size)
            return
        entry = (held, size, asyncio.get_running_loop().create_future())
        self._waiting.append(entry)
        self._admit()
        try:
            async with asyncio.timeout(self.max_wait_s):
                await entry[2]
        except TimeoutError:
            why = f"the bodies in flight take {self.held} bytes of {self.limit}: this one does not fit"
            raise Unavailable(why, ErrorCode.BODIES_IN_FLIGHT) from None
        finally:
            if entry in self._waiting:
                self._waiting.remove(entry)
                self._admit()

    def give_back(self, held: "HeldBytes") -> None:
        """Count a body's bytes no more."""
        self.held -= held.size
        held.size = 0
        if self._exceeding is held:
            self._exceeding = None
        if self._by_request.get(held.request_id) is held:
            del self._by_request[held.request_id]
        self._admit()

    def _admit(self) -> None:
        while self._waiting:
            held, size, admitted = self._waiting[0]
            if admitted.done():  # it left
                self._waiting.popleft()
                continue
            if self._exceeding is None and not self._fits(held, size):
                self._exceeding = held
            if not self._fits(held, size):
                return
            self._waiting.popleft()
            self._add(held, size)
            admitted.set_result(None)

    def _fits(self, held: "HeldBytes", size: int) -> bool:
        return self.held + size <= self.limit or self._exceeding is held

    def _add(self, held: "HeldBytes", size: int) -> None:
        self.held += size
        held.size += size


class HeldBytes:
    """The bytes of one body, from its first one until they are released."""

    def __init__(self, budget: BodyBudget, request_id: str) -> None:
        self._budget = budget
        self.request_id = request_id
        self.size = 0
        self._clock: asyncio.Timeout | None = None

    async def grow(self, size: int) -> None:
        """Count a body of as many bytes as came by now, once they fit.

        Raises:
            Unavailable: they do not fit in time.
        """
        if size <= self.size:
            return
        left_s = self._stop_clock()
        try:
            await self._budget.take(self, size - self.size)
        finally:
            self._resume_clock(left_s)

    def bound_by(self, clock: asyncio.Timeout | None) -> None:
        """Stop a client's clock while its body waits for others; `None` once the body is read."""
        self._clock = clock

    def release(self) -> None:
        """Give the bytes back; a second call has no effect."""
        self._clock = None
        self._budget.give_back(self)

    def _stop_clock(self) -> float | None:
        if self._clock is None or self._clock.expired() or (when := self._clock.when()) is None:
            return None
        self._clock.reschedule(None)
        return when - asyncio.get_running_loop().time()

    def _resume_clock(self, left_s: float | None) -> None:
        if self._clock is not None and left_s is not None and not self._clock.expired():
            self._clock.reschedule(asyncio.get_running_loop().time() + left_s)
