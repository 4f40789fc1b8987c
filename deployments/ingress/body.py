"""Bounded read of a request's body, in size and time. Knows HTTP; nothing of what a body means."""

import asyncio

from starlette.requests import Request

from deployments.contracts.errors import ErrorCode, SlowUpload, TooLarge, Unavailable, UnsupportedMedia

DRAINED_BYTES = 1024 * 1024
"""How much of a body that is too large is still read, so that the client sees the error."""


class BodyBudget:
    """Bytes of all bodies in flight at this replica, bounded.

    Args:
        limit: the bound; one body always fits while no other is in flight.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0

    def hold(self) -> "HeldBytes":
        """Begin a body of no bytes."""
        return HeldBytes(self)


class HeldBytes:
    """The bytes of one body, from its first to the request's end."""

    def __init__(self, budget: BodyBudget) -> None:
        self._budget = budget
        self._size = 0

    def check(self, size: int) -> None:
        """Check that a body of this size fits beside the others, and reserve nothing.

        A declared length alone takes no bytes: a few clients that send nothing could take them all.

        Raises:
            Unavailable: it does not fit.
        """
        others = self._budget.held - self._size
        if others and others + size > self._budget.limit:
            text = f"the bodies in flight take {others} bytes of {self._budget.limit}: this one does not fit"
            raise Unavailable(text, ErrorCode.BODIES_IN_FLIGHT)

    def grow(self, size: int) -> None:
        """Reserve as many bytes as came by now.

        Raises:
            Unavailable: they do not fit.
        """
        self.check(size)
        self._budget.held += size - self._size
        self._size = size

    def release(self) -> None:
        """Give the bytes back."""
        self._budget.held -= self._size
        self._size = 0


async def read_body(request: Request, limit: int, timeout_s: float, held: HeldBytes | None = None) -> bytes:
    """Read the request's body.

    Args:
        request: the request.
        limit: the most bytes.
        timeout_s: the longest time.
        held: counts its bytes; `None` for a body that is small in any case.

    Raises:
        UnsupportedMedia: it is compressed.
        TooLarge: it is longer than `limit` bytes.
        Unavailable: too many bytes of other bodies are in flight.
        SlowUpload: it did not arrive within `timeout_s` seconds.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in {"", "identity"}:
        raise UnsupportedMedia(
            f"the body is compressed ({encoding[:32]!r}): send it without content-encoding"
        )
    too_large = TooLarge(f"the body is larger than {limit / 1024 / 1024:g} MiB", ErrorCode.BODY_TOO_LARGE)
    if (declared := request.headers.get("content-length", "")).isdecimal() and int(declared[:20]) > limit:
        raise too_large
    if held is not None and declared.isdecimal():
        held.check(int(declared))
    pieces: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(timeout_s):
            async for piece in request.stream():
                size += len(piece)
                if size <= limit:
                    if held is not None:
                        held.grow(size)
                    pieces.append(piece)
                else:
                    pieces.clear()
                    if size > limit + DRAINED_BYTES:
                        break
    except TimeoutError:
        raise SlowUpload(f"the body did not arrive within {timeout_s:g} s") from None
    if size > limit:
        raise too_large
    return b"".join(pieces)
