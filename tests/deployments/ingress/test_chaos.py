"""Eight experts over real connections, of which all drop a deadly request, or one breaks each stream."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator

import httpx
import pytest

from deployments.config import IngressArgs, IngressConfig
from deployments.contracts.sse import DONE
from deployments.ingress.api import Api
from deployments.upstream.circuit_breaker import FAILURES_TO_OPEN, OPEN_S
from deployments.upstream.http_client import RemoteExpert
from tests.deployments.fakes import Clock, FakeRouter, answer, event
from tests.deployments.harness import CHAT

NAMES = tuple(f"e{number}" for number in range(8))


class Fleet:
    """Eight experts at eight paths of one server, behind a real ingress."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.breaking: set[str] = set()
        """Experts that drop their connection after the first event of a stream."""
        self.clock = Clock()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        experts = {name: {"url": f"http://127.0.0.1:{port}/{name}/v1"} for name in NAMES}
        config = IngressConfig.model_validate({"experts": experts})
        self.api = Api(IngressArgs(), config, FakeRouter(*NAMES), client_for=RemoteExpert, clock=self.clock)
        for expert in self.api.registry.experts.values():
            expert.state.why_not_ready = None
        transport = httpx.ASGITransport(app=self.api.app, raise_app_exceptions=False)
        self.http = httpx.AsyncClient(transport=transport, base_url="http://ingress")

    async def stop(self) -> None:
        await self.http.aclose()
        for expert in self.api.registry.experts.values():
            await expert.client.retire()
        self._server.close()

    async def ask(self, text: str, *, stream: bool = False) -> httpx.Response:
        messages = [{"role": "user", "content": text}]
        return await self.http.post(CHAT, json={"model": "auto", "messages": messages, "stream": stream})

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
                data = event(name, "x") + DONE if body["stream"] else answer(name)
                kind = b"text/event-stream" if body["stream"] else b"application/json"
                head = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n"
                writer.write(head % (kind, len(data)))
                if body["stream"] and name in self.breaking:
                    writer.write(event(name, "x"))
                    break
                writer.write(data)
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


async def test_an_expert_that_breaks_every_stream_is_out_after_five(fleet: Fleet) -> None:
    fleet.breaking = {"e0"}

    async def interrupted(requests: int) -> int:
        responses = [await fleet.ask(f"sum {number}", stream=True) for number in range(requests)]
        assert all(response.text.endswith("data: [DONE]\n\n") for response in responses)
        return sum("stream_interrupted" in response.text for response in responses)

    assert await interrupted(40) == FAILURES_TO_OPEN
    fleet.clock.now += OPEN_S
    assert await interrupted(10) == 1
    fleet.clock.now += OPEN_S  # after a failed probe it is out for twice as long
    assert await interrupted(10) == 0
