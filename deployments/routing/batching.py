"""Join requests that arrive at the same time into batches: one pass serves many.

A plain class over asyncio; imports no Ray. Serve's own `@serve.batch` reads the method's signature at
every call and scores for callers that have left; this does neither.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

TOGETHER = 8
"""Requests that go in one pass at least. Of more, half go first: a pass over all that wait would leave the
stages behind this one without work until it is over, and then this one without work until they are."""

Request = TypeVar("Request")
Result = TypeVar("Result")


class Batcher(Generic[Request, Result]):
    """One batch at a time: the next one is what arrived during the last.

    Args:
        process: returns one result for each request, in their order.
        max_size: requests in a batch at most.
        wait_s: how long a batch that is not full waits for more.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        process: Callable[[list[Request]], Awaitable[Sequence[Result]]],
        *,
        max_size: int,
        wait_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._begun_at: float | None = None
        self._process = process
        self._max_size = max_size
        self._wait_s = wait_s
        self._waiting: deque[tuple[Request, asyncio.Future[Result]]] = deque()
        self._full = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._waiting)

    @property
    def batch_age_s(self) -> float:
        """How long the batch in process has taken so far; 0 where there is none."""
        return 0.0 if self._begun_at is None else self._clock() - self._begun_at

    async def submit(self, request: Request) -> Result:
        """Return the result of a request once its batch has been processed.

        Raises:
            Exception: the error of the batch; it fails as a whole.
        """
        # While a batch hangs nothing else takes out the requests whose callers have left; they leave in
        # the order of their arrival.
        while self._waiting and self._waiting[0][1].done():
            self._waiting.popleft()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        self._waiting.append((request, future))
        if len(self._waiting) >= self._max_size:
            self._full.set()
        if self._worker is None:
            self._worker = loop.create_task(self._work())
        return await future

    async def _work(self) -> None:
        try:
            while self._waiting:
                await self._gather()
                await self._process_batch()
        finally:
            self._worker = None

    async def _gather(self) -> None:
        """Wait for a batch to fill, if there is a wait at all."""
        if self._wait_s > 0 and len(self._waiting) < self._max_size:
            self._full.clear()
            try:
                async with asyncio.timeout(self._wait_s):
                    await self._full.wait()
            except TimeoutError:
                return

    async def _process_batch(self) -> None:
        """Process the head of the queue, without the requests whose callers have left meanwhile."""
        size = min(self._max_size, max(TOGETHER, -(-len(self._waiting) // 2)))
        head = [self._waiting.popleft() for _ in range(min(size, len(self._waiting)))]
        batch = [(request, future) for request, future in head if not future.done()]
        if not batch:
            return
        self._begun_at = self._clock()
        try:
            results = await self._process([request for request, _ in batch])
        except Exception as error:  # noqa: BLE001 - each caller of the batch gets it
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        finally:
            self._begun_at = None
        for (_, future), result in zip(batch, results, strict=True):
            if not future.done():
                future.set_result(result)
