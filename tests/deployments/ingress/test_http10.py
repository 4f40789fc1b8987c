"""Old and rare HTTP: what uvicorn, which serves the ingress, makes of it behind our middleware."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
import uvicorn
from starlette.types import ASGIApp

from deployments.ingress.body_budget import BodyBudget
from deployments.ingress.middleware import ServeBoundaryMiddleware
from tests.deployments.fakes import EVENTS, event
from tests.deployments.harness import CHAT, HELLO, IngressHarness

STREAM = event("small", "a") + event("small", "b") + b"data: [DONE]\n\n"


@asynccontextmanager
async def served(app: ASGIApp) -> AsyncIterator[int]:
    """The port of a running server."""
    bodies = BodyBudget(2**24, 2**24, 1.0)
    guarded = ServeBoundaryMiddleware(app, lambda: bodies)
    server = uvicorn.Server(uvicorn.Config(guarded, port=0, log_level="error", lifespan="off"))
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.005)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await task


async def exchange(port: int, sent: bytes) -> tuple[bytes, bytes]:
    """Head and body of the response to a request, up to the connection's end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    async with asyncio.timeout(10):
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return head.lower(), body


def request(version: str, connection: str = "", **fields: object) -> bytes:
    body = orjson.dumps({**HELLO, "model": "small", **fields})
    head = f"POST {CHAT} HTTP/{version}\r\nhost: x\r\ncontent-type: application/json\r\n{connection}"
    return head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body


def streaming() -> IngressHarness:
    harness = IngressHarness()
    harness.experts["small"].parts = [STREAM[:40], STREAM[40:]]
    harness.experts["small"].headers = EVENTS
    return harness


async def test_a_stream_to_an_http10_client_ends_with_the_connection() -> None:
    async with served(streaming().app) as port:
        head, body = await exchange(port, request("1.0", stream=True))

    assert b"transfer-encoding" not in head
    assert body == STREAM


async def test_keep_alive_of_an_http10_client_does_not_keep_its_stream_open() -> None:
    async with served(streaming().app) as port:
        head, body = await exchange(port, request("1.0", "connection: keep-alive\r\n", stream=True))

    assert b"connection: close" in head
    assert body == STREAM


async def test_a_body_of_known_length_is_framed_by_it_for_http10_too() -> None:
    async with served(IngressHarness().app) as port:
        head, body = await exchange(port, request("1.0"))

    assert b"content-length: %d" % len(body) in head
    assert orjson.loads(body)["object"] == "chat.completion"


async def test_an_http11_client_still_gets_chunks() -> None:
    async with served(streaming().app) as port:
        head, body = await exchange(port, request("1.1", "connection: close\r\n", stream=True))

    assert b"transfer-encoding: chunked" in head
    assert body.endswith(b"0\r\n\r\n")


async def test_a_client_that_expects_100_gets_it_before_its_body() -> None:
    head, _, body = request("1.1", "expect: 100-continue\r\nconnection: close\r\n").partition(b"\r\n\r\n")
    async with served(IngressHarness().app) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head + b"\r\n\r\n")
        async with asyncio.timeout(10):
            first = await reader.readuntil(b"\r\n\r\n")
            writer.write(body)
            rest = await reader.read()
        writer.close()

    assert first.startswith(b"HTTP/1.1 100")
    assert rest.startswith(b"HTTP/1.1 200")
