"""Old, rare and large requests through HAProxy or Serve's proxy, Serve's queues and the ingress."""

import asyncio
from urllib.parse import urlsplit

import httpx
import orjson
import pytest

from tests.deployments.e2e.conftest import Graph
from tests.deployments.e2e.load import CHAT

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

HELLO = {"model": "auto", "messages": [{"role": "user", "content": "What is 2 + 2?"}], "max_tokens": 4}


async def raw(graph: Graph, sent: bytes) -> bytes:
    """Everything that the connection brings until it ends."""
    address = urlsplit(graph.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(sent)
    async with asyncio.timeout(60):
        received = await reader.read()
    writer.close()
    return received


def request(graph: Graph, version: str, *headers: str) -> bytes:
    body = orjson.dumps({**HELLO, "stream": True})
    lines = [
        f"POST {CHAT} HTTP/{version}",
        "host: x",
        "content-type: application/json",
        f"authorization: Bearer {graph.key}",
        f"content-length: {len(body)}",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def test_a_stream_to_an_http10_client_has_no_chunks(graph: Graph) -> None:
    head, _, body = asyncio.run(raw(graph, request(graph, "1.0"))).partition(b"\r\n\r\n")

    assert head.split(b" ")[1] == b"200"
    assert b"transfer-encoding" not in head.lower()
    assert body.startswith(b"data: {")
    assert body.endswith(b"data: [DONE]\n\n")


def test_many_headers_are_an_error_of_the_api(graph: Graph) -> None:
    many = [f"x-{number}: y" for number in range(150)]
    received = asyncio.run(raw(graph, request(graph, "1.1", "connection: close", *many)))
    body = received.partition(b"\r\n\r\n")[2]

    assert b'"code":"headers_too_large"' in body


def test_large_bodies_at_once_are_all_answered(graph: Graph) -> None:
    """More bytes than the ingress holds at a time: the rest waits, unread."""

    async def send() -> list[int]:
        body = orjson.dumps({**HELLO, "user": "x" * 12 * 2**20})
        headers = {"authorization": f"Bearer {graph.key}", "content-type": "application/json"}
        async with httpx.AsyncClient(base_url=graph.url, headers=headers, timeout=120) as client:
            responses = await asyncio.gather(*(client.post(CHAT, content=body) for _ in range(6)))
        return [response.status_code for response in responses]

    assert asyncio.run(send()) == [200] * 6


def test_tokens_are_counted_before_a_message_is_sent(graph: Graph) -> None:
    response = httpx.post(
        f"{graph.url}/v1/messages/count_tokens",
        json=HELLO,
        headers={"authorization": f"Bearer {graph.key}"},
        timeout=30,
    )

    assert response.status_code == 200, response.text
    assert response.json()["input_tokens"] > 0
