"""What a key is charged: the reservation while an expert works, and the consumption afterwards."""

import asyncio
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest

from deployments.contracts.errors import ExpertError, ExpertOverloaded, ExpertTimeout, ExpertUnavailable
from deployments.contracts.messages import PolicyView, RouterState
from deployments.contracts.sse import DONE
from deployments.limits.keys import KeyFile, KeyLimits, KeyRing, new_key, write_keys
from deployments.limits.ledger import Ledger
from deployments.limits.ledger_client import LedgerClient
from deployments.limits.messages import SyncRequest, SyncResponse, Totals
from deployments.upstream.circuit_breaker import CircuitBreaker
from router.experts import Price
from tests.deployments.asgi_client import Exchange
from tests.deployments.fakes import EVENTS, JSON, Clock, answer, event
from tests.deployments.harness import CHAT, HELLO, NAMES, IngressHarness, settle

LIMITS = KeyLimits(tokens_per_minute=10_000_000, usd_per_day=1000.0)


class Budget:
    """A harness with one key, whose ledger runs in this process."""

    def __init__(self, folder: Path, limits: KeyLimits = LIMITS, **harness: Any) -> None:
        self.harness = IngressHarness(**harness)
        self.ledger = Ledger(lambda: 1_000.0)
        key, self.record = new_key("team", limits=limits)
        write_keys(folder / "keys.json", KeyFile(keys=[self.record]))
        ring = KeyRing(folder / "keys.json")
        ring.refresh()
        self.harness.access.replace(ring, LedgerClient("a", self, lambda: 1_000.0))
        self.headers = {"authorization": f"Bearer {key}"}
        self.reserved: Totals | None = None
        for expert in self.harness.experts.values():
            expert.observe = self._look

    async def sync(self, call: SyncRequest, timeout_s: float) -> SyncResponse:
        return self.ledger.sync(call)

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        return await self.harness.http.post(path, json={"model": "small", **body}, headers=self.headers)

    def exchange(self, **fields: Any) -> Exchange:
        """A request of a client that can leave."""
        raw = [(name.encode(), value.encode()) for name, value in self.headers.items()]
        body = orjson.dumps({**HELLO, "model": "small", **fields})
        return Exchange(self.harness.app, CHAT, body, headers=raw)

    async def charged(self) -> Totals:
        await settle()
        return self.ledger.totals(self.record.id)

    def _look(self) -> None:
        self.reserved = self.ledger.totals(self.record.id)


@pytest.fixture
def budget(tmp_path: Path) -> Budget:
    return Budget(tmp_path)


@pytest.mark.parametrize(
    ("path", "body", "at_least"),
    [
        ("/v1/completions", {"prompt": "x", "max_completion_tokens": 1, "max_tokens": 4000}, 4000),
        ("/v1/completions", {"prompt": "x", "max_output_tokens": 1}, 512),
        ("/v1/responses", {"input": "x", "max_tokens": 1, "max_output_tokens": 4000}, 4000),
        ("/v1/messages", {"messages": HELLO["messages"], "max_tokens": 4000, "max_output_tokens": 1}, 4000),
        (CHAT, {"messages": HELLO["messages"], "max_completion_tokens": 1, "max_tokens": 4000}, 4000),
        (CHAT, {"messages": HELLO["messages"], "n": 128, "max_tokens": 100}, 12_800),
        ("/v1/completions", {"prompt": "x", "best_of": 20, "max_tokens": 100}, 2000),
        ("/v1/completions", {"prompt": ["x"] * 500, "n": 10, "max_tokens": 4000}, 20_000_000),
        ("/v1/completions", {"prompt": [[1, 2], [3]], "max_tokens": 100}, 203),
        (CHAT, {"messages": HELLO["messages"], "tools": [{"type": "x" * 40_000}], "max_tokens": 1}, 10_000),
        (CHAT, {"messages": HELLO["messages"], "response_format": {"x": "x" * 4000}, "max_tokens": 1}, 1000),
    ],
)
async def test_as_much_is_reserved_as_the_engine_may_use(
    tmp_path: Path, path: str, body: dict[str, Any], at_least: int
) -> None:
    budget = Budget(tmp_path, KeyLimits(tokens_per_minute=100_000_000))
    await budget.post(path, body)

    assert budget.reserved is not None
    assert at_least <= budget.reserved.tokens <= at_least + 600
    assert (await budget.charged()).tokens == 13


async def test_embeddings_reserve_their_prompts_alone(budget: Budget) -> None:
    await budget.post("/v1/embeddings", {"input": ["x" * 40] * 10, "max_tokens": 4000, "n": 9})

    assert budget.reserved is not None
    assert budget.reserved.tokens == 100


@pytest.mark.parametrize("path", ["/tokenize", "/v1/messages/count_tokens"])
async def test_counting_tokens_costs_none(budget: Budget, path: str) -> None:
    budget.harness.experts["small"].parts = [b'{"input_tokens": 5000, "count": 5000, "tokens": []}']
    response = await budget.post(path, {"messages": [{"role": "user", "content": "x" * 20_000}]})

    assert response.status_code == 200
    assert budget.reserved is not None
    assert (budget.reserved.requests, budget.reserved.tokens) == (1, 0)
    charged = await budget.charged()
    assert (charged.requests, charged.tokens, charged.usd) == (1, 0, 0.0)


@pytest.mark.parametrize("wrong", ["128", 0, -1, 1.5, True])
async def test_a_number_of_copies_is_a_whole_number(budget: Budget, wrong: Any) -> None:
    response = await budget.post(CHAT, {"messages": HELLO["messages"], "n": wrong})

    assert (response.status_code, response.json()["error"]["param"]) == (400, "n")
    assert (await budget.post(CHAT, {"messages": HELLO["messages"], "n": None})).status_code == 200


def stream_of(*texts: str, usage: tuple[int, int] | None = None) -> list[Any]:
    parts: list[Any] = [event("small", text) for text in texts]
    if usage is not None:
        parts.append(usage_event(*usage))
    return [*parts, DONE]


def usage_event(prompt: int, completion: int) -> bytes:
    usage = {"prompt_tokens": prompt, "completion_tokens": completion}
    return b"data: " + orjson.dumps({"choices": [], "usage": usage}) + b"\n\n"


@pytest.mark.parametrize("options", [None, {}, {"include_usage": False}, {"include_usage": None}])
async def test_usage_is_requested_and_taken_out_again(budget: Budget, options: Any) -> None:
    small = budget.harness.experts["small"]
    small.parts, small.headers = stream_of("a", "b", usage=(70, 500)), EVENTS
    body = {"messages": HELLO["messages"], "stream": True}
    response = await budget.post(CHAT, body if options is None else {**body, "stream_options": options})

    assert small.body()["stream_options"]["include_usage"] is True
    assert response.content == event("small", "a") + event("small", "b") + DONE
    assert (await budget.charged()).tokens == 570


async def test_usage_that_the_client_requested_reaches_it(budget: Budget) -> None:
    small = budget.harness.experts["small"]
    small.parts, small.headers = stream_of("a", usage=(70, 500)), EVENTS
    options = {"include_usage": True, "continuous_usage_stats": True}
    response = await budget.post(
        CHAT, {"messages": HELLO["messages"], "stream": True, "stream_options": options}
    )

    assert small.body()["stream_options"] == options
    assert response.content == event("small", "a") + usage_event(70, 500) + DONE


async def test_whether_usage_is_wanted_is_a_boolean(budget: Budget) -> None:
    options = {"include_usage": "no"}
    response = await budget.post(
        CHAT, {"messages": HELLO["messages"], "stream": True, "stream_options": options}
    )

    assert response.json()["error"]["param"] == "stream_options.include_usage"


async def test_a_stream_without_usage_is_charged_for_its_text(budget: Budget) -> None:
    small = budget.harness.experts["small"]
    small.parts, small.headers = stream_of(*["7 " * 400] * 10), EVENTS
    await budget.post(CHAT, {"messages": HELLO["messages"], "stream": True})

    assert 4000 <= (await budget.charged()).tokens < 9000


async def test_usage_in_a_long_closing_event_is_read(budget: Budget) -> None:
    closing = {"response": {"output": ["x" * 40_000], "usage": {"input_tokens": 7, "output_tokens": 9_000}}}
    small = budget.harness.experts["small"]
    small.parts = [b"event: response.completed\ndata: " + orjson.dumps(closing) + b"\n\n"]
    small.headers = EVENTS
    await budget.post("/v1/responses", {"input": "x", "stream": True})

    assert (await budget.charged()).tokens == 9_007


async def test_a_request_that_is_left_is_charged_as_reserved(budget: Budget) -> None:
    budget.harness.experts["small"].parts = [asyncio.Event().wait]
    exchange = budget.exchange(messages=[{"role": "user", "content": "x" * 40_000}], max_tokens=100)
    await settle()
    await exchange.disconnect()

    assert (await budget.charged()).tokens == 10_000 + 4 + 100


@pytest.mark.parametrize(
    ("failure", "tokens"),
    [
        (ExpertUnavailable("small", "gone"), 6),
        (ExpertTimeout("small", "late"), 6 + 100),
        (ExpertOverloaded("small", "full"), 0),
    ],
)
async def test_failed_attempts_are_charged_beside_the_response(
    budget: Budget, failure: ExpertError, tokens: int
) -> None:
    budget.harness.experts["small"].parts = [failure]
    response = await budget.post(CHAT, {**HELLO, "max_tokens": 100})

    assert response.headers["x-router-expert"] == "large"
    assert (await budget.charged()).tokens == 13 + tokens


async def test_a_budget_in_dollars_needs_prices(budget: Budget) -> None:
    view = PolicyView("0123456789ab", NAMES, NAMES, {}, {"large": Price(1.0, 2.0)})
    budget.harness.api.registry.update_router(RouterState(view, None))
    named = await budget.post(CHAT, HELLO | {"model": "small"})
    routed = await budget.post(CHAT, HELLO)

    assert (named.status_code, named.json()["error"]["code"]) == (403, "model_not_allowed")
    assert "no price" in named.json()["error"]["message"]
    assert routed.headers["x-router-expert"] == "large"
    budget.harness.api.registry.policy = None
    assert (await budget.post(CHAT, HELLO)).json()["error"]["code"] == "starting"


class Worker:
    """An expert that counts the tokens that it generates, and ends as a seed says."""

    def __init__(self, random: Random) -> None:
        self.generated = 0
        self._random = random

    def script(self, *, stream: bool, most: int) -> tuple[list[Any], int | None]:
        """Parts of a response, and after how many of them the client leaves; `None` for never."""
        end = self._random.choice(["complete", "no usage", "broken", "left", "timeout", "left at once"])
        total = self._random.randint(1, most)
        if end in {"timeout", "left at once"}:
            self.generated += total
            return [ExpertTimeout("small", "late") if end == "timeout" else asyncio.Event().wait], 0
        if not stream:
            self.generated += total
            whole = orjson.loads(answer("small", "7" * total))
            whole["usage"] = {"prompt_tokens": 6, "completion_tokens": total}
            if end == "no usage":
                del whole["usage"]
            if end == "broken":
                return [orjson.dumps(whole)[:-1], ExpertUnavailable("small", "gone")], None
            return [orjson.dumps(whole)], None
        parts: list[Any] = []
        left = total
        while left:
            size = self._random.randint(1, left)
            parts.append(self._counted(size))
            left -= size
        if end == "broken":
            return [*parts, ExpertUnavailable("small", "gone")], None
        if end == "left":
            return [*parts, asyncio.Event().wait], len(parts)
        return [*parts, *([usage_event(6, total)] if end == "complete" else []), DONE], None

    def _counted(self, tokens: int) -> Any:
        def generate() -> bytes:
            self.generated += tokens
            return event("small", "7" * tokens)

        return generate


async def test_charged_is_at_least_what_was_generated_however_requests_end(tmp_path: Path) -> None:
    budget = Budget(tmp_path, names=("small",))
    small = budget.harness.experts["small"]
    random = Random(7)
    for number in range(2000):
        worker = Worker(random)
        stream, most = random.random() < 0.5, random.randint(1, 40)
        before = (await budget.charged()).tokens
        # Each request reaches the expert, whatever became of those before it.
        budget.harness.api.registry.experts["small"].breaker = CircuitBreaker(Clock())
        small.parts, leaves_after = worker.script(stream=stream, most=most)
        small.headers = EVENTS if stream else JSON
        bound = random.choice(["max_tokens", "max_completion_tokens"])
        exchange = budget.exchange(stream=stream, **{bound: most})
        if leaves_after is None:
            await exchange.task
        else:
            await settle()
            await exchange.disconnect()

        assert (await budget.charged()).tokens - before >= worker.generated, number


async def test_sequences_occupy_slots_until_their_request_ends(tmp_path: Path) -> None:
    budget = Budget(tmp_path, names=("small",), small={"max_in_flight": 8})
    queue, slots = budget.harness.api.queue, budget.harness.api.registry.experts["small"].slots
    seen: list[tuple[int, int]] = []
    budget.harness.experts["small"].observe = lambda: seen.append((queue.held, slots.held))
    await budget.post("/v1/completions", {"prompt": ["x"] * 3, "n": 2, "max_tokens": 4})
    await budget.post("/v1/completions", {"prompt": ["x"] * 30, "max_tokens": 4})
    budget.harness.experts["small"].parts = [ExpertUnavailable("small", "gone")]
    await budget.post("/v1/completions", {"prompt": ["x"] * 5, "max_tokens": 4})

    assert seen == [(6, 6), (30, 8), (5, 5)]
    assert (queue.held, slots.held) == (0, 0)
