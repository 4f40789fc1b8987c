"""What a key is charged: the reservation while an expert works, and the consumption afterwards."""

from pathlib import Path
from typing import Any

import pytest

from deployments.limits.keys import KeyFile, KeyLimits, KeyRing, new_key, write_keys
from deployments.limits.ledger import Ledger
from deployments.limits.ledger_client import LedgerClient
from deployments.limits.messages import SyncRequest, SyncResponse, Totals
from tests.deployments.harness import CHAT, HELLO, IngressHarness, settle

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


@pytest.mark.parametrize("wrong", ["128", 0, -1, 1.5, True])
async def test_a_number_of_copies_is_a_whole_number(budget: Budget, wrong: Any) -> None:
    response = await budget.post(CHAT, {"messages": HELLO["messages"], "n": wrong})

    assert (response.status_code, response.json()["error"]["param"]) == (400, "n")
    assert (await budget.post(CHAT, {"messages": HELLO["messages"], "n": None})).status_code == 200
