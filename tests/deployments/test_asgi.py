"""An app called in process: its head with the first bytes, then what gathered; cancelled when left."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from deployments.asgi import Head, call

left = asyncio.Event()


async def echo(request: Request) -> Response:
    return JSONResponse({"body": (await request.body()).decode(), "q": request.url.query}, 201)


async def slow(request: Request) -> Response:
    async def parts() -> AsyncIterator[bytes]:
        try:
            for number in range(1000):
                yield f"{number};".encode()
                await asyncio.sleep(0.001)
        finally:
            left.set()

    return StreamingResponse(parts())


async def fails(request: Request) -> Response:
    raise ValueError("inside")


APP = Starlette(routes=[Route("/echo", echo, methods=["POST"]), Route("/slow", slow), Route("/fails", fails)])


async def test_a_whole_answer_comes_in_one_piece() -> None:
    parts = [part async for part in call(APP, "POST", "/echo?a=1", ((b"x", b"y"),), b"hello")]

    assert len(parts) == 1
    head = parts[0]
    assert isinstance(head, Head)
    assert (head.status, head.body, head.complete) == (201, b'{"body":"hello","q":"a=1"}', True)


async def test_chunks_that_gathered_leave_together() -> None:
    answer = call(APP, "GET", "/slow", (), b"")
    head = await anext(answer)
    assert isinstance(head, Head)
    assert head.body.startswith(b"0;")
    await asyncio.sleep(0.05)
    gathered = await anext(answer)
    await answer.aclose()

    assert isinstance(gathered, bytes)
    assert gathered.count(b";") > 3


async def test_leaving_cancels_the_app() -> None:
    left.clear()
    answer = call(APP, "GET", "/slow", (), b"")
    await anext(answer)
    await answer.aclose()

    assert left.is_set()


async def test_what_the_app_raises_reaches_the_caller() -> None:
    with pytest.raises(ValueError, match="inside"):
        [part async for part in call(APP, "GET", "/fails", (), b"")]
