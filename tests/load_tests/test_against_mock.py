"""The whole way of one request: workload, client, mock, figures."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from load_tests import mock
from load_tests.client import Outcome, Target
from load_tests.load import closed_loop, open_loop
from load_tests.measures import summarise
from load_tests.workloads import Shape, requests


@asynccontextmanager
async def mocked(response: bytes | None = None) -> AsyncIterator[Target]:
    """The mock on a free port; with `response`, a server that sends only that and closes."""
    if response is None:
        server = await mock.serve(0, 0.0, 0.0)
    else:
        server = await asyncio.start_server(_sending(response), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield Target.of(f"http://127.0.0.1:{port}")
    finally:
        server.close()


async def once(target: Target, shape: Shape) -> Outcome:
    load = await closed_loop(
        target, requests("short", shape, 0), concurrency=1, count=1, seconds=10, timeout_s=5
    )
    return load.outcomes[0]


async def test_a_stream_counts_each_event_and_each_token() -> None:
    async with mocked() as target:
        outcome = await once(target, Shape(max_tokens=9))

    assert (outcome.error, outcome.status, outcome.streamed) == ("", 200, True)
    assert outcome.tokens == 9
    assert outcome.chunks == 9 + 4  # role, finish, usage, [DONE]
    assert 0 < outcome.ttft_s <= outcome.e2e_s


async def test_other_responses_have_their_tokens_from_usage() -> None:
    async with mocked() as target:
        outcome = await once(target, Shape(max_tokens=9, stream=False))

    assert (outcome.error, outcome.tokens, outcome.streamed, outcome.tpot_s) == ("", 9, False, None)


async def test_a_closed_loop_sends_no_more_than_its_count() -> None:
    async with mocked() as target:
        load = await closed_loop(
            target, requests("mixed", Shape(), 0), concurrency=4, count=21, seconds=30, timeout_s=5
        )

    figures = summarise(load, {"ttft_ms": 1e9})
    assert (figures["requests"], figures["answered"], figures["errors"]) == (21, 21, {})
    assert figures["goodput"]["fraction"] == 1.0


async def test_an_open_loop_sends_each_arrival() -> None:
    async with mocked() as target:
        load = await open_loop(target, requests("short", Shape(), 0), arrivals=[0.0, 0.0, 0.001], timeout_s=5)

    assert summarise(load)["answered"] == 3


REJECTED = b'{"error":{"code":"rate_limited"}}'
ENDED_AT_ONCE = b'data: {"usage": {"completion_tokens": 1}}' + b"\n\ndata: [DONE]\n\n"
STREAMED = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (b"HTTP/1.1 429 No\r\ncontent-length: %d\r\n\r\n" % len(REJECTED) + REJECTED, "429:rate_limited"),
        (b"garbage\r\n\r\n", "transport:bad_http"),
        (b"", "transport:connection_lost"),
        (STREAMED + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n", "stream:no_token"),
        (STREAMED + b"39\r\n" + ENDED_AT_ONCE + b"\r\n0\r\n\r\n", ""),
        (STREAMED + b'14\r\ndata: {"error": 1}\n\n\r\n0\r\n\r\n', "stream:error_event"),
        (STREAMED + b"5\r\ndata:", "transport:connection_lost"),
    ],
)
async def test_each_way_to_fail_has_its_own_kind(response: bytes, error: str) -> None:
    async with mocked(response) as target:
        outcome = await once(target, Shape())

    assert outcome.error == error


def _sending(
    response: bytes,
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(response)
        writer.close()

    return handle


def test_the_mock_writes_events_as_an_engine_does() -> None:
    chunk = json.loads(mock.event({"content": "word "}).removeprefix(b"data: "))

    assert chunk["choices"][0]["delta"] == {"content": "word "}
    assert chunk["object"] == "chat.completion.chunk"
