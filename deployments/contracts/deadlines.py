"""One deadline for each request, and bounded waits that lose neither a cancellation nor a result."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

T = TypeVar("T")


class Deadline:
    """The one deadline of a request, which its wait and all its attempts share."""

    def __init__(
        self, seconds: float, clock: Callable[[], float] = time.monotonic, started: float | None = None
    ) -> None:
        self._clock = clock
        self.seconds = seconds
        self._at = (clock() if started is None else started) + seconds

    def left_s(self) -> float:
        return self._at - self._clock()


async def within(seconds: float, awaitable: Awaitable[T]) -> T:
    """The result of `awaitable`, if it comes in time; else it is cancelled.

    `asyncio.wait_for` swallows a cancellation that comes at the time of the result (Python 3.11):
    a request then continues although its client disconnected. `asyncio.timeout` loses the result at
    that time, and with it what a call on a handle needs to be cancelled.

    Raises:
        TimeoutError: it did not come within `seconds`.
    """
    task = asyncio.ensure_future(awaitable)
    task.add_done_callback(_seen)
    try:
        await asyncio.wait({task}, timeout=seconds)
        in_time = task.done()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
    if not in_time:
        raise TimeoutError
    return task.result()


def own_task_is_cancelled() -> bool:
    """Whether the running task itself was cancelled, not only the awaitable that it waited for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _seen(task: "asyncio.Future[Any]") -> None:
    """Mark an exception as retrieved: a failure that is not awaited any more needs no warning."""
    if not task.cancelled():
        task.exception()
