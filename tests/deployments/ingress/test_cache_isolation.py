"""A key's own salt of the engines' prefix caches."""

from pathlib import Path
from typing import Any

import pytest

from deployments.contracts.endpoints import ENDPOINTS
from deployments.ingress.access import Access
from deployments.limits.keys import KeyFile, KeyRing, new_key, write_keys
from tests.deployments.harness import HELLO, IngressHarness

QUERIES: dict[str, Any] = {"messages": HELLO["messages"], "input": "hello", "prompt": "hello"}


def keys(folder: Path) -> tuple[Access, list[dict[str, str]], list[str]]:
    """Access with two keys, the headers of their requests, and their ids."""
    made = [new_key(name) for name in ("one", "two")]
    write_keys(folder / "keys.json", KeyFile(keys=[record for _, record in made]))
    ring = KeyRing(folder / "keys.json")
    ring.refresh()
    return Access(ring), [{"authorization": f"Bearer {key}"} for key, _ in made], [r.id for _, r in made]


async def test_each_key_has_a_prefix_cache_of_its_own(tmp_path: Path) -> None:
    access, headers, ids = keys(tmp_path)
    harness = IngressHarness(access=access)
    for header in headers:
        await harness.ask(header)

    assert [harness.experts["small"].body(n)["cache_salt"] for n in (0, 1)] == [f"#key:{id_}:" for id_ in ids]


@pytest.mark.parametrize("path", ENDPOINTS)
async def test_only_endpoints_that_read_a_salt_get_one(tmp_path: Path, path: str) -> None:
    access, headers, _ = keys(tmp_path)
    harness = IngressHarness(access=access, small={"capabilities": ["embeddings"]})
    field = ENDPOINTS[path].query_field
    await harness.http.post(path, json={"model": "small", field: QUERIES[field]}, headers=headers[0])

    assert ("cache_salt" in harness.experts["small"].body()) == ENDPOINTS[path].cache_salt


async def test_experts_elsewhere_and_callers_without_a_key_get_no_salt(tmp_path: Path) -> None:
    access, headers, _ = keys(tmp_path)
    elsewhere = {"app": None, "url": "http://elsewhere/v1"}
    harness = IngressHarness(access=access, small=elsewhere)
    await harness.ask(headers[0], model="small")
    anonymous = IngressHarness()
    await anonymous.ask(model="small")

    assert "cache_salt" not in harness.experts["small"].body()
    assert "cache_salt" not in anonymous.experts["small"].body()


async def test_isolation_can_be_switched_off(tmp_path: Path) -> None:
    access, headers, _ = keys(tmp_path)
    harness = IngressHarness(access=access, cache_isolation="none")
    await harness.ask(headers[0])

    assert "cache_salt" not in harness.experts["small"].body()


async def test_a_salt_that_an_expert_accepts_stays_within_its_key(tmp_path: Path) -> None:
    access, headers, ids = keys(tmp_path)
    harness = IngressHarness(access=access, forbidden_fields={"allow": {"small": ["cache_salt"]}})
    await harness.ask(headers[0], model="small", cache_salt=f"#key:{ids[1]}:")

    assert harness.experts["small"].body()["cache_salt"] == f"#key:{ids[0]}:#key:{ids[1]}:"
