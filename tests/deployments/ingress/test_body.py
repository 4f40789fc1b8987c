"""The bounded read of a body."""

import asyncio
from collections.abc import Callable

import orjson
import pytest
from starlette.requests import Request
from starlette.types import Message

from deployments.config import IngressArgs
from deployments.contracts.errors import SlowUpload, TooLarge
from deployments.ingress.body import read_body
from deployments.ingress.body_budget import FREE_BYTES, BodyBudget, HeldBytes
from tests.deployments.asgi_client import Exchange
from tests.deployments.fakes import EVENTS, event
from tests.deployments.harness import CHAT, HELLO, IngressHarness, settle


def request(*pieces: bytes, length: bytes | None = None, ends: bool = True) -> Request:
    queue: asyncio.Queue[Message] = asyncio.Queue()
    for index, piece in enumerate(pieces):
        more = not ends or index < len(pieces) - 1
        queue.put_nowait({"type": "http.request", "body": piece, "more_body": more})
    headers = [] if length is None else [(b"content-length", length)]
    return Request({"type": "http", "headers": headers}, queue.get)


def held_bytes() -> HeldBytes:
    return HeldBytes(BodyBudget(2**20, 2**20, 1.0), "req-1")


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not is_so():  # noqa: ASYNC110 - of several tasks of the harness
            await asyncio.sleep(0)


async def test_a_body_in_pieces_is_joined() -> None:
    assert await read_body(request(b"a", b"b"), 2, 1.0, held_bytes()) == b"ab"


@pytest.mark.parametrize("length", [b"3", b"9" * 5000])
async def test_a_declared_length_over_the_limit_is_rejected_at_once(length: bytes) -> None:
    with pytest.raises(TooLarge):
        await read_body(request(length=length), 2, 1.0, held_bytes())


async def test_a_longer_body_than_declared_is_rejected() -> None:
    with pytest.raises(TooLarge):
        await read_body(request(b"a", b"bc", length=b"1"), 2, 1.0, held_bytes())


async def test_a_body_that_does_not_end_is_rejected() -> None:
    with pytest.raises(SlowUpload):
        await read_body(request(b"a", ends=False), 2, 0.01, held_bytes())


async def test_time_that_a_body_waits_for_others_is_not_the_clients() -> None:
    budget = BodyBudget(FREE_BYTES, 2 * FREE_BYTES, max_wait_s=5.0)
    first, second, third = (HeldBytes(budget, name) for name in ("first", "second", "third"))
    await first.grow(FREE_BYTES)
    await second.grow(FREE_BYTES + 1)
    waits = asyncio.create_task(read_body(request(bytes(FREE_BYTES), b"1"), 2 * FREE_BYTES, 0.02, third))
    done, _ = await asyncio.wait({waits}, timeout=0.1)

    assert not done
    first.release()
    second.release()
    assert len(await waits) == FREE_BYTES + 1


@pytest.mark.parametrize("path", [CHAT, "/v1/route"])
async def test_bodies_in_flight_are_bounded_and_given_back(path: str) -> None:
    harness = IngressHarness(args=IngressArgs(max_bodies_mib=0.1, upload_timeout_s=0.3))
    waits = asyncio.Event()
    large = {"user": "x" * 90_000}
    harness.experts["small"].parts = [waits.wait]
    first = [asyncio.create_task(harness.ask(**large)) for _ in range(2)]
    await until(lambda: harness.api.bodies.held > 180_000)
    second = await harness.http.post(path, json={**HELLO, **large})

    assert (second.status_code, second.json()["error"]["code"]) == (503, "bodies_in_flight")
    assert "retry-after" in second.headers
    waits.set()
    await asyncio.gather(*first)
    assert harness.api.bodies.held == 0
    assert (await harness.http.post(path, json={**HELLO, **large})).status_code == 200
    assert harness.api.bodies.held == 0


async def test_a_response_that_begins_gives_its_requests_bytes_back(harness: IngressHarness) -> None:
    waits = asyncio.Event()
    harness.experts["small"].parts = [event("small", "a"), waits.wait, b"data: [DONE]\n\n"]
    harness.experts["small"].headers = EVENTS
    exchange = harness.exchange(stream=True)
    await exchange.body_began.wait()

    assert harness.api.bodies.held == 0
    waits.set()
    await exchange.task


async def test_a_client_that_leaves_gives_its_bytes_back(harness: IngressHarness) -> None:
    exchange = Exchange(harness.app, CHAT, b"{", None)
    await settle()
    before = harness.api.bodies.held
    await exchange.disconnect()

    assert (before, harness.api.bodies.held) == (1, 0)


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
