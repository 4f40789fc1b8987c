"""Join calls that arrive at the same time into batches: one pass serves many.

A plain class over asyncio; imports no Ray. Serve's own `@serve.batch` reads the method's signature at
every call and scores for callers that have left; this does neither.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

TOGETHER = 8
"""Requests that go in one pass at least. Of more, half go first: a pass over all that wait would leave the
stages behind this one without work until it is over, and then this one without work until they are."""

Request = TypeVar("Request")
Result = TypeVar("Result")


@dataclass(slots=True)
class _Call(Generic[Request, Result]):
    """The requests of one caller, which returns to it as a whole."""

    requests: Sequence[Request]
    future: "asyncio.Future[list[Result]]"
    taken: int = 0
    """Requests that are in a batch already."""
    results: list[Result] = field(default_factory=list)


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
        self._waiting: deque[_Call[Request, Result]] = deque()
        self._count = 0
        self._full = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return self._count

    @property
    def batch_age_s(self) -> float:
        """How long the batch in process has taken so far; 0 where there is none."""
        return 0.0 if self._begun_at is None else self._clock() - self._begun_at

    async def submit(self, requests: Sequence[Request]) -> list[Result]:
        """Return the results of some requests, in their order, once all of them have been processed.

        Raises:
            Exception: the error of a batch with one of them; it fails as a whole.
        """
        if not requests:
            return []
        # While a batch hangs nothing else takes out the calls whose callers have left; they leave in the
        # order of their arrival.
        while self._waiting and self._waiting[0].future.done():
            left = self._waiting.popleft()
            self._count -= len(left.requests) - left.taken
        loop = asyncio.get_running_loop()
        call: _Call[Request, Result] = _Call(requests, loop.create_future())
        self._waiting.append(call)
        self._count += len(requests)
        if self._count >= self._max_size:
            self._full.set()
        if self._worker is None:
            self._worker = loop.create_task(self._work())
        return await call.future

    async def _work(self) -> None:
        try:
            while self._waiting:
                await self._gather()
                await self._process_batch()
        finally:
            self._worker = None

    async def _gather(self) -> None:
        """Wait for a batch to fill, if there is a wait at all."""
        if self._wait_s > 0 and self.waiting < self._max_size:
            self._full.clear()
            try:
                async with asyncio.timeout(self._wait_s):
                    await self._full.wait()
            except TimeoutError:
                return

    def _next_batch(self) -> list[tuple[_Call[Request, Result], Sequence[Request]]]:
        """Take the head of the queue, without the calls whose callers have left meanwhile.

        A call returns as a whole, so it is divided only where it exceeds a batch.
        """
        enough = max(TOGETHER, -(-self._count // 2))
        batch: list[tuple[_Call[Request, Result], Sequence[Request]]] = []
        size = 0
        while self._waiting and size < min(enough, self._max_size):
            call = self._waiting[0]
            if call.future.done():
                self._count -= len(call.requests) - call.taken
                self._waiting.popleft()
                continue
            part = call.requests[call.taken :][: self._max_size - size]
            call.taken += len(part)
            size += len(part)
            self._count -= len(part)
            batch.append((call, part))
            if call.taken == len(call.requests):
                self._waiting.popleft()
        return batch

    async def _process_batch(self) -> None:
        batch = self._next_batch()
        if not batch:
            return
        self._begun_at = self._clock()
        try:
            results = await self._process([request for _, part in batch for request in part])
        except Exception as error:  # noqa: BLE001 - each caller of the batch gets it
            for call, _ in batch:
                if not call.future.done():
                    call.future.set_exception(error)
            return
        finally:
            self._begun_at = None
        begin = 0
        for call, part in batch:
            call.results.extend(results[begin : begin + len(part)])
            begin += len(part)
            if len(call.results) == len(call.requests) and not call.future.done():
                call.future.set_result(call.results)
