"""An app called in process: its head with the first bytes, then what gathered; cancelled when left."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from deployments.contracts.messages import Head
from deployments.expert.asgi import DISCONNECT_GRACE_S, MAX_WAITING_BYTES, call

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


async def whole(request: Request) -> Response:
    """As vLLM answers without a stream: the work in one task, the ear for the client in another."""

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            left.set()

    async def listen() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    await request.body()
    working, listening = asyncio.create_task(work()), asyncio.create_task(listen())
    _, pending = await asyncio.wait({working, listening}, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    return Response()


async def words(request: Request) -> Response:
    """A piece in each turn of the loop."""

    async def parts() -> AsyncIterator[bytes]:
        for number in range(5):
            yield f"{number};".encode()
            await asyncio.sleep(0)

    return StreamingResponse(parts())


async def breaks(request: Request) -> Response:
    async def parts() -> AsyncIterator[bytes]:
        for number in range(4):
            yield f"{number};".encode()
            await asyncio.sleep(0)
        raise ValueError("midway")

    return StreamingResponse(parts())


async def deaf(request: Request) -> Response:
    try:
        await asyncio.Event().wait()
    finally:
        left.set()
    return Response()


async def fails(request: Request) -> Response:
    raise ValueError("inside")


written = 0


async def fast(request: Request) -> Response:
    """Far ahead of whatever reads it."""

    async def parts() -> AsyncIterator[bytes]:
        global written
        for written in range(1000):  # noqa: B007 - the test reads it
            yield b"x" * 10_000

    return StreamingResponse(parts())


APP = Starlette(
    routes=[
        Route("/echo", echo, methods=["POST"]),
        Route("/slow", slow),
        Route("/fast", fast),
        Route("/whole", whole),
        Route("/words", words),
        Route("/breaks", breaks),
        Route("/deaf", deaf),
        Route("/fails", fails),
    ]
)


async def test_a_non_streaming_response_comes_in_one_piece() -> None:
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


async def test_pieces_wait_for_those_that_come_soon_and_the_end_for_nothing() -> None:
    async with asyncio.timeout(10):
        parts = [part async for part in call(APP, "GET", "/words", (), b"", interval_s=1000)]

    head, *rest = parts
    assert isinstance(head, Head)
    assert head.body == b"0;"
    assert rest == [b"1;", b"2;3;4;"]


async def test_pieces_that_take_much_memory_wait_for_no_others() -> None:
    answer = call(APP, "GET", "/fast", (), b"", interval_s=1000)
    async with asyncio.timeout(10):
        sizes = [len(part.body if isinstance(part, Head) else part) async for part in answer]

    assert sum(sizes) == 10_000_000
    assert all(size >= MAX_WAITING_BYTES for size in sizes[2:-1])


async def test_what_came_before_a_failure_is_not_lost() -> None:
    answer = call(APP, "GET", "/breaks", (), b"", interval_s=1000)
    async with asyncio.timeout(10):
        parts = [await anext(answer), await anext(answer), await anext(answer)]
        with pytest.raises(ValueError, match="midway"):
            await anext(answer)

    assert parts[1:] == [b"1;", b"2;3;"]


async def test_an_app_waits_for_a_consumer_that_does_not_read() -> None:
    answer = call(APP, "GET", "/fast", (), b"")
    head = await anext(answer)
    assert isinstance(head, Head)
    for _ in range(2000):
        await asyncio.sleep(0)
    ahead = written
    rest = b"".join([part async for part in answer if isinstance(part, bytes)])

    assert 10_000 * ahead <= len(head.body) + MAX_WAITING_BYTES + 20_000
    assert len(head.body + rest) == 10_000_000


async def test_leaving_frees_an_app_that_waits_for_its_consumer() -> None:
    answer = call(APP, "GET", "/fast", (), b"")
    await anext(answer)
    for _ in range(2000):
        await asyncio.sleep(0)
    async with asyncio.timeout(DISCONNECT_GRACE_S):
        await answer.aclose()

    assert written < 999


async def test_leaving_cancels_the_app() -> None:
    left.clear()
    answer = call(APP, "GET", "/slow", (), b"")
    await anext(answer)
    await answer.aclose()

    assert left.is_set()


@pytest.mark.parametrize("path", ["/whole", "/deaf"])
async def test_a_disconnect_ends_the_work_for_a_non_streaming_response(path: str) -> None:
    """Also where it runs in a task that the app forgets when it is cancelled itself."""
    left.clear()

    async def ask() -> None:
        answer = call(APP, "GET", path, (), b"")
        try:
            await anext(answer)
        finally:
            await answer.aclose()

    asking = asyncio.create_task(ask())
    await asyncio.sleep(0.05)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await asyncio.sleep(0)

    assert left.is_set()


async def test_what_the_app_raises_reaches_the_caller() -> None:
    with pytest.raises(ValueError, match="inside"):
        [part async for part in call(APP, "GET", "/fails", (), b"")]
