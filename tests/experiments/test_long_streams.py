"""How a long stream ended: complete, or cut in one of the ways in which streams are cut."""

import copy
from collections.abc import AsyncIterator

import httpx
import pytest

from experiments.long_streams import BACK_END, CHANGES, stream
from load_tests.peers import simulated_graph

TOKEN = b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n'
DONE = b"data: [DONE]\n\n"
ERROR = b'data: {"error": {"message": "cut"}}\n\n'
SECONDS = 2.0
"""Four tokens."""


class Cut(httpx.AsyncByteStream):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield TOKEN
        raise httpx.RemoteProtocolError("the connection closed")


@pytest.mark.parametrize(
    ("content", "status", "ending"),
    [
        (TOKEN * 4 + DONE, 200, "complete"),
        (TOKEN * 3 + DONE, 200, "tokens are missing"),
        (TOKEN * 4 + ERROR + DONE, 200, "HTTP 200, not complete"),
        (TOKEN * 4, 200, "HTTP 200, not complete"),
        (b"", 503, "HTTP 503, not complete"),
        (None, 200, "RemoteProtocolError"),
    ],
)
async def test_the_ending_of_a_stream_says_whether_it_was_cut(
    content: bytes | None, status: int, ending: str
) -> None:
    opened = []
    respond = httpx.MockTransport(
        lambda _: httpx.Response(status, content=content, stream=Cut() if content is None else None)
    )
    async with httpx.AsyncClient(transport=respond, base_url="http://ingress") as client:
        ended = await stream(client, 0, SECONDS, lambda: opened.append(True))

    assert ended == ending
    assert opened == [True]


@pytest.mark.parametrize("name", CHANGES)
def test_each_change_changes_the_graph(name: str) -> None:
    graph = simulated_graph(BACK_END)
    before = copy.deepcopy(graph)
    CHANGES[name](graph)

    assert (graph == before) is (name == "one ingress replica")  # the first state
