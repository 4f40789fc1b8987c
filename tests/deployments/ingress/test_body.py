"""The bounded read of a body."""

import asyncio

import pytest
from starlette.requests import Request
from starlette.types import Message

from deployments.contracts.errors import SlowUpload, TooLarge
from deployments.ingress.body import read_body


def request(*pieces: bytes, length: bytes | None = None, ends: bool = True) -> Request:
    queue: asyncio.Queue[Message] = asyncio.Queue()
    for index, piece in enumerate(pieces):
        more = not ends or index < len(pieces) - 1
        queue.put_nowait({"type": "http.request", "body": piece, "more_body": more})
    headers = [] if length is None else [(b"content-length", length)]
    return Request({"type": "http", "headers": headers}, queue.get)


async def test_a_body_in_pieces_is_joined() -> None:
    assert await read_body(request(b"a", b"b"), 2, 1.0) == b"ab"


@pytest.mark.parametrize("length", [b"3", b"9" * 5000])
async def test_a_declared_length_over_the_limit_is_rejected_at_once(length: bytes) -> None:
    with pytest.raises(TooLarge):
        await read_body(request(length=length), 2, 1.0)


async def test_a_longer_body_than_declared_is_rejected() -> None:
    with pytest.raises(TooLarge):
        await read_body(request(b"a", b"bc", length=b"1"), 2, 1.0)


async def test_a_body_that_does_not_end_is_rejected() -> None:
    with pytest.raises(SlowUpload):
        await read_body(request(b"a", ends=False), 2, 0.01)
