"""Join what is asked at the same time: one pass answers many.

A plain class over asyncio; imports no Ray. Serve's own `@serve.batch` reads the method's signature at
every call and scores for callers that have left; this does neither.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

TOGETHER = 8
"""So many questions go in one pass. Of more, half go first: a pass over all who wait would leave the
stages behind this one without work until it is over, and then this one without work until they are."""

Question = TypeVar("Question")
Answer = TypeVar("Answer")


class Batcher(Generic[Question, Answer]):
    """One batch at a time: the next one is what gathered while the last was answered.

    Args:
        answer: one answer for each question, in their order.
        most: questions in a batch at most.
        wait_s: how long a batch that is not full waits for more.
    """

    def __init__(
        self, answer: Callable[[list[Question]], Awaitable[Sequence[Answer]]], *, most: int, wait_s: float
    ) -> None:
        self._answer = answer
        self._most = most
        self._wait_s = wait_s
        self._waiting: list[tuple[Question, asyncio.Future[Answer]]] = []
        self._full = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None

    async def ask(self, question: Question) -> Answer:
        """The answer, when its batch has been answered.

        Raises:
            Exception: what the batch failed with; it failed as a whole.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append((question, future))
        if len(self._waiting) >= self._most:
            self._full.set()
        if self._worker is None:
            self._worker = loop.create_task(self._work())
        return await future

    async def _work(self) -> None:
        try:
            while self._waiting:
                await self._gather()
                await self._serve()
        finally:
            self._worker = None

    async def _gather(self) -> None:
        """Wait for a batch to fill, if there is a wait at all."""
        if self._wait_s > 0 and len(self._waiting) < self._most:
            self._full.clear()
            try:
                async with asyncio.timeout(self._wait_s):
                    await self._full.wait()
            except TimeoutError:
                return

    async def _serve(self) -> None:
        """Answer those at the head of the queue; who has left meanwhile is passed over."""
        size = min(self._most, max(TOGETHER, -(-len(self._waiting) // 2)))
        batch, self._waiting = self._waiting[:size], self._waiting[size:]
        batch = [(question, future) for question, future in batch if not future.done()]
        if not batch:
            return
        try:
            answers = await self._answer([question for question, _ in batch])
        except Exception as error:  # noqa: BLE001 - each caller of the batch is told
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)
