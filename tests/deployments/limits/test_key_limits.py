"""The ingress with keys: which requests are admitted, to which experts, and how many."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from deployments.limits.keys import KeyFile, KeyLimits, KeyRing, new_key, write_keys
from deployments.limits.ledger import Ledger
from deployments.limits.ledger_client import LedgerClient
from deployments.limits.messages import SyncRequest, SyncResponse
from deployments.observability import metrics
from tests.deployments.harness import CHAT, HELLO, IngressHarness, settle


class InProcess:
    """Connection to a ledger in this process."""

    def __init__(self) -> None:
        self.ledger = Ledger(lambda: 1_000.0)

    async def sync(self, call: SyncRequest, timeout_s: float) -> SyncResponse:
        return self.ledger.sync(call)


INTERACTIVE = {"routing": {"priority": "interactive"}}


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def with_keys(harness: IngressHarness, tmp_path: Path, **settings: Any) -> str:
    key, record = new_key("team", **settings)
    write_keys(tmp_path / "keys.json", KeyFile(keys=[record]))
    ring = KeyRing(tmp_path / "keys.json")
    ring.refresh()
    harness.access.replace(ring, LedgerClient("a", InProcess(), lambda: 1_000.0))
    return key


async def test_with_keys_every_endpoint_but_health_needs_one(harness: IngressHarness, tmp_path: Path) -> None:
    key = with_keys(harness, tmp_path)
    rejected = [await harness.http.post(path, json=HELLO) for path in (CHAT, "/v1/route", "/v1/embeddings")]
    rejected.append(await harness.http.get("/v1/models"))

    assert {response.status_code for response in rejected} == {401}
    assert {response.json()["error"]["code"] for response in rejected} == {"invalid_api_key"}
    assert {response.headers["www-authenticate"] for response in rejected} == {"Bearer"}
    assert (await harness.http.get("/health")).status_code == 200
    assert (await harness.ask(bearer(key))).status_code == 200
    assert not any(b"authorization" in asked[2] for asked in harness.experts["small"].asked)


@pytest.mark.parametrize("path", [CHAT, "/v1/route"])
async def test_a_batch_keys_requests_wait_behind_those_of_others(
    harness: IngressHarness, tmp_path: Path, path: str
) -> None:
    headers, queue = bearer(with_keys(harness, tmp_path, batch=True)), harness.api.queue
    queue.resize(1, max_queued=2, max_wait_s=5)
    await queue.acquire("interactive", 1.0)
    batch = asyncio.create_task(harness.http.post(path, headers=headers, json=HELLO | INTERACTIVE))
    await settle()
    other = asyncio.create_task(queue.acquire("interactive", 1.0))
    await settle()
    queue.release()
    await settle()
    first_was_other = other.done() and not batch.done()
    queue.release()

    assert first_was_other
    assert (await batch).status_code == 200


async def test_a_key_reaches_only_its_experts(harness: IngressHarness, tmp_path: Path) -> None:
    headers = bearer(with_keys(harness, tmp_path, experts=["large"]))

    assert (await harness.ask(headers)).headers["x-router-expert"] == "large"
    named = await harness.ask(headers, model="small")
    assert (named.status_code, named.json()["error"]["code"]) == (403, "model_not_allowed")
    models = (await harness.http.get("/v1/models", headers=headers)).json()["data"]
    assert [card["id"] for card in models] == ["auto", "auto-cheap", "large"]


async def test_a_keys_preset_is_what_auto_means_and_the_body_outweighs_it(
    harness: IngressHarness, tmp_path: Path
) -> None:
    headers = bearer(with_keys(harness, tmp_path, preset="auto-cheap"))
    await harness.ask(headers)
    await harness.ask(headers, routing={"cost_weight": 0.0})

    assert [request.preferences.cost_weight for request in harness.router.asked] == [1.0, 0.0]


async def test_a_keys_limit_is_429_with_a_retry_after(harness: IngressHarness, tmp_path: Path) -> None:
    headers = bearer(with_keys(harness, tmp_path, limits=KeyLimits(requests_per_minute=2)))
    statuses = [(await harness.ask(headers)).status_code for _ in range(3)]
    rejected = await harness.ask(headers)

    assert statuses == [200, 200, 429]
    assert rejected.json()["error"]["code"] == "rate_limit_exceeded"
    assert 30 < int(rejected.headers["retry-after"]) <= 61 * 1.25


async def test_a_spent_budget_has_the_header_against_retries(harness: IngressHarness, tmp_path: Path) -> None:
    headers = bearer(with_keys(harness, tmp_path, limits=KeyLimits(usd_per_day=1e-9)))
    rejected = await harness.ask(headers)

    assert rejected.json()["error"]["code"] == "budget_exceeded"
    assert rejected.headers["x-should-retry"] == "false"


async def test_a_limit_is_charged_with_real_usage_not_the_reserved_one(
    harness: IngressHarness, tmp_path: Path
) -> None:
    headers = bearer(with_keys(harness, tmp_path, limits=KeyLimits(tokens_per_minute=600)))
    statuses = [(await harness.ask(headers)).status_code for _ in range(5)]

    assert statuses == [200] * 5


@pytest.mark.parametrize(
    ("path", "kind", "body"),
    [("/v1/route", "route", HELLO), ("/v1/feedback", "feedback", {"request_id": "x", "quality": 1})],
)
async def test_requests_without_an_expert_are_limited_admitted_and_counted(
    harness: IngressHarness, tmp_path: Path, path: str, kind: str, body: dict[str, Any]
) -> None:
    headers = bearer(with_keys(harness, tmp_path, limits=KeyLimits(requests_per_minute=2)))
    before = metrics.requests.labels(kind, "429")._value.get()
    harness.api.queue.resize(0, max_queued=0, max_wait_s=0.0)
    full = await harness.http.post(path, json=body, headers=headers)
    harness.api.queue.resize(1, max_queued=0, max_wait_s=0.0)
    answered = [(await harness.http.post(path, json=body, headers=headers)).status_code for _ in range(3)]

    assert (full.status_code, full.json()["error"]["code"]) == (429, "queue_full")
    assert answered[0] in {200, 404}
    assert answered[1:] == [answered[0], 429]
    assert metrics.requests.labels(kind, "429")._value.get() == before + 2
    assert harness.api.queue.held == 0
