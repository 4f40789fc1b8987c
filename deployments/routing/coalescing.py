"""Join what waits at a caller into one call: a call between processes costs more than what it carries.

A plain class over asyncio; imports no Ray. Nothing waits for others to come: what gathers while a call is
under way leaves together.
"""

import asyncio
import contextvars
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

HOLD_S = 0.005
"""A call that is longer under way keeps the next one back no more: it computes long, or its replica hangs."""
MOST_TOGETHER = 128
"""Requests in one call at most."""

Request = TypeVar("Request")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class _Waiting(Generic[Request, Result]):
    request: Request
    future: "asyncio.Future[Result]"
    deadline: float
    """By the event loop's clock."""


class Coalescer(Generic[Request, Result]):
    """Sends requests as calls of many.

    Args:
        call: sends requests within so many seconds; returns as many results, in their order.
        hold_s: how long a call keeps the next one back at most.
    """

    def __init__(
        self,
        call: Callable[[list[Request], float], Awaitable[Sequence[Result]]],
        *,
        hold_s: float = HOLD_S,
    ) -> None:
        self._call = call
        self._hold_s = hold_s
        self._waiting: deque[_Waiting[Request, Result]] = deque()
        self._held = False
        self._calls: set[asyncio.Task[None]] = set()

    async def submit(self, request: Request, timeout_s: float) -> Result:
        """Return the result of a request.

        Raises:
            TimeoutError: there was none within `timeout_s`.
            Exception: the error of its call; it fails as a whole.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        self._waiting.append(_Waiting(request, future, loop.time() + timeout_s))
        if not self._held:
            # Once this turn of the loop is over, so that what else it makes ready comes along.
            self._held = True
            loop.call_soon(self._send, context=contextvars.Context())
        async with asyncio.timeout(timeout_s):
            return await future

    def _send(self) -> None:
        """Send what waits, or hold back nothing any more where nothing does."""
        loop = asyncio.get_running_loop()
        together: list[_Waiting[Request, Result]] = []
        while self._waiting and len(together) < MOST_TOGETHER:
            one = self._waiting.popleft()
            if not one.future.done():
                together.append(one)
        self._held = bool(together)
        if not together:
            return
        # A context of its own: Serve cancels the calls of a request whose client leaves, by their context.
        task = loop.create_task(self._sent(together), context=contextvars.Context())
        self._calls.add(task)
        timer = loop.call_later(self._hold_s, self._send, context=contextvars.Context())

        def ended(task: "asyncio.Task[None]") -> None:
            self._calls.discard(task)
            if timer.when() > loop.time():
                timer.cancel()
                self._send()

        task.add_done_callback(ended, context=contextvars.Context())

    async def _sent(self, together: list[_Waiting[Request, Result]]) -> None:
        timeout_s = max(one.deadline for one in together) - asyncio.get_running_loop().time()
        try:
            results = await self._call([one.request for one in together], timeout_s)
            if len(results) != len(together):
                raise ConnectionError(f"{len(results)} results for {len(together)} requests")
        except Exception as error:  # noqa: BLE001 - each caller gets it
            for one in together:
                if not one.future.done():
                    one.future.set_exception(error)
            return
        for one, result in zip(together, results, strict=True):
            if not one.future.done():
                one.future.set_result(result)
