"""The time that a simulated engine takes: slots that requests wait for, and when each token is due.

Pure asyncio with the clock and the wait passed in; knows nothing of HTTP.
"""

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable

from deployments.simulated.args import Behaviour


class Slots:
    """Requests that are served at once; the rest wait in order."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self.running = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def resize(self, slots: int) -> None:
        """Put another number into effect; running requests go on."""
        self._slots = slots
        self._fill()

    async def acquire(self) -> None:
        """Wait for a slot; the caller must `release` it."""
        if self.running < self._slots and not self._waiting:
            self.running += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release()
            elif turn in self._waiting:
                self._waiting.remove(turn)
            raise

    def release(self) -> None:
        """Release a slot; the next request gets it."""
        self.running -= 1
        self._fill()

    def _fill(self) -> None:
        while self._waiting and self.running < self._slots:
            turn = self._waiting.popleft()
            if not turn.done():
                self.running += 1
                turn.set_result(None)


class Pace:
    """When each token of one request is due."""

    def __init__(
        self,
        behaviour: Behaviour,
        drawn: random.Random,
        clock: Callable[[], float],
        wait: Callable[[float], Awaitable[None]],
    ) -> None:
        factor = drawn.uniform(1 - behaviour.jitter, 1 + behaviour.jitter) if behaviour.jitter else 1.0
        self._first_s = behaviour.ttft_ms / 1000 * factor
        self._each_s = 0.0 if behaviour.tokens_per_s is None else factor / behaviour.tokens_per_s
        self._clock, self._wait = clock, wait
        self._started = clock()

    def _left_s(self, token: int) -> float:
        due = self._started + self._first_s + self._each_s * (token - 1)
        return due - self._clock()

    def is_due(self, token: int) -> bool:
        return self._left_s(token) <= 0

    async def until(self, token: int) -> None:
        """Wait until the token of this number (from 1) is due."""
        if (left_s := self._left_s(token)) > 0:
            await self._wait(left_s)
