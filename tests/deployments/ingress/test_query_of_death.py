"""Eight experts over real connections, and a request that makes each of them drop its connection."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator

import httpx
import pytest

from deployments.config import IngressArgs, IngressConfig
from deployments.ingress.api import Api
from deployments.upstream.circuit_breaker import FAILURES_TO_OPEN
from deployments.upstream.http_client import RemoteExpert
from tests.deployments.fakes import FakeRouter, answer
from tests.deployments.harness import CHAT

NAMES = tuple(f"e{number}" for number in range(8))


class Fleet:
    """Eight experts at eight paths of one server, behind a real ingress."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        experts = {name: {"url": f"http://127.0.0.1:{port}/{name}/v1"} for name in NAMES}
        config = IngressConfig.model_validate({"experts": experts})
        self.api = Api(IngressArgs(), config, FakeRouter(*NAMES), client_for=RemoteExpert)
        for expert in self.api.registry.experts.values():
            expert.state.why_not_ready = None
        transport = httpx.ASGITransport(app=self.api.app, raise_app_exceptions=False)
        self.http = httpx.AsyncClient(transport=transport, base_url="http://ingress")

    async def stop(self) -> None:
        await self.http.aclose()
        for expert in self.api.registry.experts.values():
            await expert.client.retire()
        self._server.close()

    async def ask(self, text: str) -> httpx.Response:
        messages = [{"role": "user", "content": text}]
        return await self.http.post(CHAT, json={"model": "auto", "messages": messages})

    def states(self) -> set[str]:
        return {expert.breaker.state for expert in self.api.registry.experts.values()}

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                name = head.split(b"/", 2)[1].decode()
                length = head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]
                body = json.loads(await reader.readexactly(int(length)))
                self.calls[name] += 1
                if "death" in body["messages"][0]["content"]:
                    break
                data = answer(name)
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
                    b"content-length: %d\r\n\r\n%s" % (len(data), data)
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    running = Fleet()
    await running.start()
    yield running
    await running.stop()


async def test_a_query_of_death_meets_two_of_eight_experts(fleet: Fleet) -> None:
    for number in range(FAILURES_TO_OPEN + 1):
        response = await fleet.ask("death")
        assert response.status_code == 503
        assert fleet.calls.total() == 2 * (number + 1)

    assert fleet.states() == {"closed"}
    assert (await fleet.ask("another")).headers["x-router-expert"] == "e0"


@pytest.mark.parametrize("requests", [220, pytest.param(1100, marks=pytest.mark.slow)])
async def test_deaths_among_ordinary_requests_lose_none_of_them(fleet: Fleet, requests: int) -> None:
    """Every eleventh; each deadly one has a text of its own."""
    statuses: dict[bool, Counter[int]] = {True: Counter(), False: Counter()}
    numbers = iter(range(requests))

    async def lane() -> None:
        for number in numbers:
            deadly = number % 11 == 0
            response = await fleet.ask(f"{'death' if deadly else 'sum'} {number}")
            statuses[deadly][response.status_code] += 1

    await asyncio.gather(*(lane() for _ in range(16)))
    deadly, ordinary = statuses[True].total(), statuses[False].total()

    assert statuses[False] == {200: ordinary}
    assert statuses[True] == {503: deadly}
    assert fleet.calls.total() <= ordinary + 2 * deadly
    assert fleet.states() == {"closed"}
