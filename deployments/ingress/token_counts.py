"""The largest token count of several experts: a bound for a client, whichever of them will respond."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import orjson

from deployments.upstream.attempts import OpenedResponse

MOST_EXPERTS = 16
"""Experts that count for one request."""


async def largest_count(
    open_at: Callable[[str], Coroutine[Any, Any, OpenedResponse]],
    experts: Sequence[str],
    release: Callable[[OpenedResponse], None],
) -> OpenedResponse:
    """Let several experts count at once, and return the response with the largest count.

    Args:
        open_at: opens the response of one expert.
        experts: their names.
        release: gives back what a response holds that is not returned.

    Raises:
        ApiError: none responded; the error of the first.
    """
    calls = [asyncio.create_task(open_at(name)) for name in experts[:MOST_EXPERTS]]
    try:
        await asyncio.wait(calls)
    except BaseException:
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        for opened in _opened(calls):
            release(opened)
        raise
    if not (responses := _opened(calls)):
        return calls[0].result()
    largest = max(responses, key=_count)
    for opened in responses:
        if opened is not largest:
            release(opened)
    return largest


def _opened(calls: Sequence[asyncio.Task[OpenedResponse]]) -> list[OpenedResponse]:
    return [call.result() for call in calls if not call.cancelled() and call.exception() is None]


def _count(opened: OpenedResponse) -> int:
    count = orjson.loads(opened.stream.head.body).get("input_tokens")
    return count if isinstance(count, int) else 0
