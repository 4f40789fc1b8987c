"""Experts at a URL: one configured host, its own key, bytes as they come, every failure an `ExpertError`."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from deployments.config import ExpertTarget
from deployments.contracts.errors import ExpertTimeout, ExpertUnavailable, ExpertUnreachable
from deployments.contracts.messages import REPLICA_KEY
from deployments.contracts.protocols import ResponseStream
from deployments.upstream import http_client
from deployments.upstream.http_client import RemoteExpert

URL = "http://expert.example/v1"
CHAT = "/v1/chat/completions"


def remote(handler: Callable[[httpx.Request], Any], **settings: Any) -> RemoteExpert:
    target = ExpertTarget.model_validate({"url": URL, **settings})
    return RemoteExpert("cloud", target, httpx.MockTransport(handler))


async def everything(stream: ResponseStream) -> bytes:
    return stream.head.body + b"".join([chunk async for chunk in stream.rest])


async def test_the_configured_host_gets_its_own_key_and_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"ok": True})

    monkeypatch.setenv("CLOUD_KEY", "secret")
    expert = remote(handler, key_env="CLOUD_KEY", model="big-1")
    headers = [(b"authorization", b"Bearer of-the-client"), (b"x-request-id", b"abc"), (REPLICA_KEY, b"k")]
    stream = await expert.open("POST", CHAT, headers, b"{}", 5)

    assert await everything(stream) == b'{"ok":true}'
    assert str(seen[0].url) == "http://expert.example/v1/chat/completions"
    assert seen[0].headers.get_list("authorization") == ["Bearer secret"]
    assert seen[0].headers["x-request-id"] == "abc"
    assert REPLICA_KEY.decode() not in seen[0].headers
    assert expert.model == "big-1"


async def test_a_key_file_is_read_at_every_request(tmp_path: Path) -> None:
    file = tmp_path / "key"
    keys: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers["authorization"])
        return httpx.Response(200, json={})

    expert = remote(handler, key_file=str(file))
    for key in ("one\n", "two\n"):
        file.write_text(key)
        await everything(await expert.open("POST", CHAT, (), b"{}", 5))
    file.unlink()

    assert keys == ["Bearer one", "Bearer two"]
    with pytest.raises(ExpertUnavailable, match="key_file"):
        await expert.open("POST", CHAT, (), b"{}", 5)


async def test_while_a_key_file_hangs_the_last_key_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    released, sent, read = threading.Event(), [], []

    def handler(request: httpx.Request) -> httpx.Response:
        sent.append(request.headers["authorization"])
        return httpx.Response(200, content=b"{}")

    def read_key(file: str) -> str:
        if read:
            released.wait(5)
        read.append(file)
        return "first"

    monkeypatch.setattr(http_client, "KEY_TIMEOUT_S", 0.2)
    target = ExpertTarget.model_validate({"url": URL, "key_file": "key"})
    expert = RemoteExpert("cloud", target, httpx.MockTransport(handler), read_key)
    try:
        for _ in range(2):
            await everything(await expert.open("POST", CHAT, (), b"{}", 5))
    finally:
        released.set()

    assert sent == ["Bearer first"] * 2


async def test_a_key_files_relative_path_begins_at_the_projects_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key").write_text("one")
    monkeypatch.setenv("TO_ROUTER_ROOT", str(tmp_path))
    keys: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers["authorization"])
        return httpx.Response(200, json={})

    await everything(await remote(handler, key_file="key").open("POST", CHAT, (), b"{}", 5))

    assert keys == ["Bearer one"]


async def test_a_path_beside_v1_is_requested_there() -> None:
    seen: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(str(request.url))
        return httpx.Response(200, json={})

    await everything(await remote(handler).open("POST", "/tokenize", (), b"{}", 5))

    assert seen == ["http://expert.example/tokenize"]


async def test_a_redirect_is_never_followed() -> None:
    asked: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(302, headers={"location": "http://169.254.169.254/latest"})

    stream = await remote(handler).open("POST", CHAT, (), b"{}", 5)

    assert stream.head.status == 302
    assert asked == ["http://expert.example/v1/chat/completions"]


@pytest.mark.parametrize(
    ("error", "accepted"),
    [
        (httpx.ConnectError("x"), False),
        (httpx.ReadError("x"), True),
        (httpx.RemoteProtocolError("x"), True),
        (httpx.ConnectTimeout("x"), False),
    ],
)
async def test_failures_before_the_first_byte_are_unavailable(error: Exception, accepted: bool) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise error

    with pytest.raises(ExpertUnavailable) as caught:
        await remote(handler).open("POST", CHAT, (), b"{}", 5)
    assert isinstance(caught.value, ExpertUnreachable) != accepted


async def test_silence_is_a_timeout() -> None:
    async def handler(request: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(ExpertTimeout):
        await remote(handler).open("POST", CHAT, (), b"{}", 0.01)


@pytest.mark.parametrize(
    "settings",
    [
        {"url": "ftp://host/v1"},
        {"url": "file:///etc/passwd"},
        {"url": URL, "app": "x"},
        {},
        {"app": "x", "key_env": "K"},
        {"url": URL, "key_env": "K", "key_file": "f"},
        {"url": URL, "capabilities": ["telepathy"]},
    ],
)
def test_a_target_that_makes_no_sense_is_rejected(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ExpertTarget.model_validate(settings)


class Server:
    """A real HTTP server on loopback that streams, breaks off or waits as configured."""

    def __init__(self) -> None:
        self.left = asyncio.Event()
        self.mode = "stream"
        app = Starlette(routes=[Route("/v1/chat/completions", self.chat, methods=["POST"])])
        config = uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, lifespan="off")
        self.server = uvicorn.Server(config)
        self.task: asyncio.Task[None] | None = None

    async def chat(self, request: Request) -> Response:
        async def events() -> AsyncIterator[bytes]:
            try:
                yield b"data: 1\n\n"
                if self.mode == "break":
                    raise ConnectionResetError
                if self.mode == "hang":
                    await asyncio.Event().wait()
                yield b"data: [DONE]\n\n"
            finally:
                self.left.set()

        return StreamingResponse(events(), media_type="text/event-stream")

    async def expert(self) -> RemoteExpert:
        self.client = RemoteExpert("cloud", ExpertTarget(url=await self.start()))
        return self.client

    async def start(self) -> str:
        self.task = asyncio.create_task(self.server.serve())
        async with asyncio.timeout(10):
            while not self.server.started:  # noqa: ASYNC110 - uvicorn has a flag, no event
                await asyncio.sleep(0.01)
        port = self.server.servers[0].sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}/v1"

    async def stop(self) -> None:
        await self.client.retire()
        self.server.should_exit = self.server.force_exit = True
        assert self.task is not None
        await self.task


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    running = Server()
    yield running
    await running.stop()


async def test_a_stream_over_a_real_connection_passes_as_it_is(server: Server) -> None:
    expert = await server.expert()
    stream = await expert.open("POST", CHAT, (), b"{}", 5)

    assert await everything(stream) == b"data: 1\n\ndata: [DONE]\n\n"
    assert (b"content-type", b"text/event-stream; charset=utf-8") in stream.head.headers


async def test_a_connection_that_breaks_midway_is_unavailable(server: Server) -> None:
    server.mode = "break"
    expert = await server.expert()
    stream = await expert.open("POST", CHAT, (), b"{}", 5)

    with pytest.raises(ExpertUnavailable):
        await everything(stream)


async def test_a_retired_client_closes_after_its_last_response(server: Server) -> None:
    expert = await server.expert()
    first, second = [await expert.open("POST", CHAT, (), b"{}", 5) for _ in range(2)]
    await expert.retire()
    await everything(first)
    assert not expert._client.is_closed
    await second.aclose()

    assert expert._client.is_closed
    # A request that began with the configuration before may come to it still.
    assert await everything(await expert.open("POST", CHAT, (), b"{}", 5)) == b"data: 1\n\ndata: [DONE]\n\n"
    assert expert._client.is_closed


async def test_giving_a_stream_up_closes_the_connection(server: Server) -> None:
    server.mode = "hang"
    expert = await server.expert()
    stream = await expert.open("POST", CHAT, (), b"{}", 5)
    await stream.aclose()

    async with asyncio.timeout(5):
        await server.left.wait()
