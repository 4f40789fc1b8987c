"""Parse bodies: small ones at once, large ones in one thread, one after the other.

A parser holds the interpreter until it is done. In a thread, the event loop runs between two bodies, and one
tree of values is in memory at a time.
"""

from collections.abc import Callable
from typing import TypeVar

from deployments.contracts.blocking_calls import BlockingCalls
from deployments.contracts.errors import ErrorCode, Unavailable

T = TypeVar("T")

LARGE_BYTES = 64 * 1024
"""A body up to this size is parsed in less time than a thread takes to start."""


class BodyParser:
    """Parses the bodies of one ingress replica.

    Args:
        max_wait_s: the longest time that a large body may take, its wait for others included.
    """

    def __init__(self, max_wait_s: float) -> None:
        self._max_wait_s = max_wait_s
        self._large = BlockingCalls("large-bodies")

    async def parse(self, parse: Callable[[bytes], T], raw: bytes) -> T:
        """Return what a function reads from a body.

        Raises:
            Unavailable: other large bodies take too long.
            ApiError: as the function.
        """
        if len(raw) <= LARGE_BYTES:
            return parse(raw)
        try:
            return await self._large.run(parse, raw, timeout_s=self._max_wait_s)
        except TimeoutError:
            text = "too many large bodies are being parsed"
            raise Unavailable(text, ErrorCode.BODIES_IN_FLIGHT) from None
