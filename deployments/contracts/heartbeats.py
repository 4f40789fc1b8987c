"""Heartbeats of an expert: what shows that it works while a non-streaming response is not there yet.

A replica sends them while its engine makes progress, and a caller bounds the silence between them
instead of the time until the response: a long answer needs long.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable

from deployments.contracts.messages import HEARTBEAT, HEARTBEATS, Head, Headers

PERIOD_S = 1.0
"""Between two heartbeats."""


class Progress:
    """When one attempt was last seen to make progress.

    Args:
        limit_s: the longest silence before the attempt ends; `None` for no bound but its deadline.
        clock: monotonic seconds.
    """

    def __init__(self, limit_s: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit_s = limit_s
        self._clock = clock
        self._seen_at = clock()

    def note(self) -> None:
        """The expert shows progress now."""
        self._seen_at = self._clock()

    def silent_s(self) -> float:
        """Seconds since then."""
        return self._clock() - self._seen_at


def are_wanted(headers: Headers) -> bool:
    """Whether a call is to get heartbeats."""
    return HEARTBEATS in headers


async def with_heartbeats(
    parts: AsyncGenerator[Head | bytes, None], steps: Callable[[], int], period_s: float = PERIOD_S
) -> AsyncGenerator[Head | bytes, None]:
    """Yield the parts of a response, and before the first of them heartbeats.

    Closing the generator closes `parts`.

    Args:
        parts: a `Head`, then body bytes.
        steps: returns a number that changes while the engine makes progress.
        period_s: between two heartbeats.
    """
    head = asyncio.ensure_future(anext(parts))
    seen = steps()
    try:
        while not (await asyncio.wait({head}, timeout=period_s))[0]:
            if (now := steps()) != seen:
                seen = now
                yield HEARTBEAT
        yield head.result()
        async for part in parts:
            yield part
    finally:
        if not head.done():
            head.cancel()
            await asyncio.wait({head})
        if not head.cancelled():
            head.exception()  # retrieved: it was raised above, or came while the caller left
        await parts.aclose()
