"""The bounded read of a body."""

import asyncio

import orjson
import pytest
from starlette.requests import Request
from starlette.types import Message

from deployments.config import IngressArgs
from deployments.contracts.errors import SlowUpload, TooLarge, Unavailable
from deployments.ingress.body import BodyBudget, read_body
from tests.deployments.asgi_client import Exchange
from tests.deployments.harness import CHAT, HELLO, IngressHarness, settle


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


async def test_a_declared_body_that_does_not_fit_is_not_read() -> None:
    budget = BodyBudget(10)
    first = budget.hold()
    await read_body(request(b"12345678", length=b"8"), 8, 1.0, first)
    second = request(b"123", length=b"3")
    with pytest.raises(Unavailable):
        await read_body(second, 8, 1.0, budget.hold())

    assert budget.held == 8
    assert (await second.receive())["body"] == b"123"  # not read
    first.release()
    assert budget.held == 0


async def test_bytes_are_reserved_as_they_come() -> None:
    budget = BodyBudget(4)
    other, held = budget.hold(), budget.hold()
    other.grow(1)
    with pytest.raises(Unavailable):
        await read_body(request(b"12", b"34"), 8, 1.0, held)

    assert budget.held == 3
    held.release()
    assert budget.held == 1


async def test_one_body_fits_whatever_the_budget_is() -> None:
    budget = BodyBudget(1)
    assert await read_body(request(b"1", b"2", length=b"2"), 8, 1.0, budget.hold()) == b"12"


@pytest.mark.parametrize("path", [CHAT, "/v1/route"])
async def test_bodies_in_flight_are_bounded_and_given_back(path: str) -> None:
    harness = IngressHarness(args=IngressArgs(max_bodies_mib=0.001))
    waits = asyncio.Event()
    harness.experts["small"].parts = [waits.wait]
    first = asyncio.create_task(harness.ask(user="x" * 800))
    await settle()
    second = await harness.http.post(path, json={**HELLO, "user": "x" * 800})

    assert (second.status_code, second.json()["error"]["code"]) == (503, "bodies_in_flight")
    assert "retry-after" in second.headers
    waits.set()
    await first
    assert harness.api.bodies.held == 0
    assert (await harness.http.post(path, json={**HELLO, "user": "x" * 800})).status_code == 200
    assert harness.api.bodies.held == 0


async def test_a_client_that_leaves_gives_its_bytes_back(harness: IngressHarness) -> None:
    exchange = Exchange(harness.app, CHAT, b"{", None)
    await settle()
    held = harness.api.bodies.held
    await exchange.disconnect()

    assert (held, harness.api.bodies.held) == (1, 0)


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "deflate", "zstd", "br"])
async def test_a_compressed_body_is_415_and_the_message_says_so(encoding: str) -> None:
    response = await IngressHarness().ask({"content-encoding": encoding})

    assert (response.status_code, response.json()["error"]["code"]) == (415, "unsupported_media_type")
    assert "compressed" in response.json()["error"]["message"]


async def test_a_null_parameter_is_as_left_out(harness: IngressHarness) -> None:
    await harness.ask(n=None, stop=None, temperature=0, model="small")

    assert harness.experts["small"].body().keys() == {"model", "messages", "temperature"}


async def test_a_byte_order_mark_is_no_part_of_the_body(harness: IngressHarness) -> None:
    body = b"\xef\xbb\xbf" + orjson.dumps(HELLO)

    assert (await harness.http.post(CHAT, content=body)).status_code == 200
