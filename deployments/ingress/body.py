"""Bounded read of a request's body, in size and time. Knows HTTP; nothing of what a body means."""

import asyncio

from starlette.requests import Request

from deployments.contracts.errors import ErrorCode, SlowUpload, TooLarge, UnsupportedMedia
from deployments.ingress.body_budget import HeldBytes

DRAINED_BYTES = 1024 * 1024
"""How much of a body that is too large is still read, so that the client sees the error."""


async def read_body(request: Request, limit: int, timeout_s: float, held: HeldBytes) -> bytes:
    """Read the request's body.

    Args:
        request: the request.
        limit: the most bytes.
        timeout_s: the longest time, without that for which the body waits for others.
        held: counts its bytes.

    Raises:
        UnsupportedMedia: it is compressed.
        TooLarge: it is longer than `limit` bytes.
        Unavailable: too many bytes of other bodies are in flight, for too long.
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
    pieces: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(timeout_s) as clock:
            held.bound_by(clock)
            async for piece in request.stream():
                size += len(piece)
                if size <= limit:
                    await held.grow(size)
                    pieces.append(piece)
                else:
                    pieces.clear()
                    if size > limit + DRAINED_BYTES:
                        break
    except TimeoutError:
        raise SlowUpload(f"the body did not arrive within {timeout_s:g} s") from None
    finally:
        held.bound_by(None)
    if size > limit:
        raise too_large
    return b"".join(pieces)
