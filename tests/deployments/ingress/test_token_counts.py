"""`POST /v1/messages/count_tokens`: an expert's own count, and for `auto` the largest."""

import asyncio
from typing import Any

import httpx
import orjson
import pytest

from tests.deployments.harness import HELLO, IngressHarness, settle

PATH = "/v1/messages/count_tokens"


def ingress(**counts: Any) -> IngressHarness:
    harness = IngressHarness()
    for name, expert in harness.experts.items():
        count = counts[name]
        expert.parts = [orjson.dumps({"input_tokens": count}) if isinstance(count, int) else count]
    return harness


async def count(harness: IngressHarness, model: str) -> httpx.Response:
    return await harness.http.post(PATH, json={**HELLO, "model": model, "system": "short"})


@pytest.mark.parametrize(("small", "large"), [(7, 9), (9, 7)])
async def test_auto_has_the_largest_count(small: int, large: int) -> None:
    harness = ingress(small=small, large=large)
    response = await count(harness, "auto")

    assert response.json() == {"input_tokens": 9}
    assert response.headers["x-router-expert"] == ("small" if small == 9 else "large")
    assert response.headers["x-router-reason"] == "routed"
    assert {expert.slots.held for expert in harness.api.registry.experts.values()} == {0}


async def test_a_named_expert_counts_alone() -> None:
    harness = ingress(small=7, large=9)

    assert (await count(harness, "small")).json() == {"input_tokens": 7}
    assert harness.experts["large"].asked == []


async def test_an_expert_that_cannot_count_does_not_matter_where_another_can() -> None:
    harness = ingress(small=7, large=9)
    harness.experts["large"].status = 404

    assert (await count(harness, "auto")).json() == {"input_tokens": 7}


async def test_no_expert_that_can_count_is_the_experts_error() -> None:
    harness = ingress(small=7, large=9)
    for expert in harness.experts.values():
        expert.status = 404

    assert (await count(harness, "auto")).status_code == 404


async def test_a_client_that_leaves_frees_all_slots() -> None:
    waits = asyncio.Event()
    harness = ingress(small=7, large=waits.wait)
    call = asyncio.create_task(count(harness, "auto"))
    await settle()
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    await settle()

    assert {expert.slots.held for expert in harness.api.registry.experts.values()} == {0}
    assert harness.api.queue.held == 0
