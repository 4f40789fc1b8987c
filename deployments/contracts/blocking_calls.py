"""Blocking calls off the event loop: a thread for each concern, one call at a time, each wait bounded.

A call that hangs keeps the thread of its own concern only. On asyncio's common threads a few of them,
such as requests to a controller that is away or look-ups of names, would stop every other concern too.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


class BlockingCalls:
    """The thread of one concern.

    Args:
        name: the thread's name.
    """

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._free = asyncio.Lock()

    async def run(
        self,
        function: Callable[..., T],
        *args: Any,
        timeout_s: float,
        unwanted: Callable[[T], object] | None = None,
    ) -> T:
        """Return the result of a call, made once the call before it has ended.

        Args:
            function: the call.
            *args: its arguments.
            timeout_s: bound of the wait.
            unwanted: called in the same thread with a result that comes when nothing waits for it any more.

        Raises:
            TimeoutError: there was none within `timeout_s`. The call goes on if it has begun, and no
                other begins before its end.
        """
        async with asyncio.timeout(timeout_s):
            await self._free.acquire()
            call = asyncio.get_running_loop().run_in_executor(self._executor, function, *args)
            call.add_done_callback(lambda _: self._free.release())
            try:
                return await asyncio.shield(call)
            except asyncio.CancelledError:
                if unwanted is not None:
                    call.add_done_callback(lambda late: self._discard(late, unwanted))
                raise

    def _discard(self, late: "asyncio.Future[T]", unwanted: Callable[[T], object]) -> None:
        if not late.cancelled() and late.exception() is None:
            self._executor.submit(unwanted, late.result())
