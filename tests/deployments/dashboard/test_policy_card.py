"""The card of the policy in effect, over HTTP and from files."""

import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployments.contracts.messages import RouterState
from deployments.dashboard.policy_card import MAX_REPORT_BYTES, PolicyCard
from tests.deployments.dashboard.graph import NAMES, PRICES, Graph, policy_view


@pytest.fixture
async def page() -> AsyncIterator[tuple[Graph, httpx.AsyncClient]]:
    graph = Graph()
    transport = httpx.ASGITransport(app=graph.api.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as http:
        yield graph, http


class Folder:
    """A policy folder with its evaluation, as far as the page reads them."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TO_ROUTER_ROOT", str(root))
        (root / "policy").mkdir()
        (root / "policy-report").mkdir()
        raw = json.dumps({"format": "to-router-policy", "seed": 7}).encode()
        (root / "policy" / "manifest.json").write_bytes(raw)
        (root / "policy" / "CARD.md").write_text("# a card", encoding="utf-8")
        self.policy_id = hashlib.sha256(raw).hexdigest()[:12]
        self.report_file = root / "policy-report" / "report.json"
        self.report(policy_id=self.policy_id, n_queries=5)

    def report(self, **fields: Any) -> None:
        self.report_file.write_text(json.dumps(fields), encoding="utf-8")


async def test_card_shows_the_policy_in_effect_and_no_other(
    page: tuple[Graph, httpx.AsyncClient], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, http = page
    folder = Folder(tmp_path, monkeypatch)

    graph.api.registry.update_router(RouterState(policy_view(folder.policy_id, "policy"), None))
    card = (await http.get("/page/data/policy")).json()
    assert card["manifest"]["seed"] == 7
    assert card["card"] == "# a card"
    assert card["report"]["n_queries"] == 5
    assert card["preferences"]["cost_weight"] == 0.3
    assert card["why"] == []

    folder.report(policy_id="ffffffffffff")
    card = (await http.get("/page/data/policy")).json()
    assert card["report"] is None
    assert "is of another policy" in card["why"][0]

    graph.api.registry.update_router(RouterState(policy_view("ffffffffffff", "policy"), None))
    card = (await http.get("/page/data/policy")).json()
    assert (card["manifest"], card["card"]) == (None, None)
    assert "holds another policy than the one in effect" in card["why"][0]


async def test_a_policy_from_priors_is_reported_with_the_next_step(
    page: tuple[Graph, httpx.AsyncClient],
) -> None:
    graph, http = page

    graph.api.registry.update_router(RouterState(replace(policy_view(), is_prior=True), None))
    router = (await http.get("/ready")).json()["parts"]["router"]
    card = (await http.get("/page/data/policy")).json()

    assert router["ready"]
    assert "made from priors" in router["why"]
    assert card["is_prior"]
    assert "to-router start --probe" in card["why"][0]


async def test_policy_without_its_folder_has_no_card(
    page: tuple[Graph, httpx.AsyncClient],
) -> None:
    _, http = page

    card = (await http.get("/page/data/policy")).json()

    assert card["policy_id"] == "0123456789ab"
    assert card["manifest"] is None
    assert any("cannot be read here" in line for line in card["why"])
    assert any("to-router evaluate --policy" in line for line in card["why"])


async def test_report_with_nan_is_sent_as_null(
    page: tuple[Graph, httpx.AsyncClient], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, http = page
    folder = Folder(tmp_path, monkeypatch)
    folder.report(policy_id=folder.policy_id, aiq=float("nan"))
    graph.api.registry.update_router(RouterState(policy_view(folder.policy_id, "policy"), None))

    response = await http.get("/page/data/policy")

    assert response.headers["content-type"] == "application/json"
    assert response.json()["report"]["aiq"] is None


def test_prices_are_those_of_the_allowed_experts() -> None:
    card = PolicyCard(Graph().api.registry)

    assert set(card.prices(None)["prices"]) == set(NAMES)
    assert set(card.prices({"words"})["about"]) == {"words"}
    assert card.prices({"words"})["prices"] == {
        "words": {"input": PRICES["words"].input, "output": PRICES["words"].output}
    }


async def test_card_without_a_policy_has_the_routers_reason() -> None:
    graph = Graph()
    graph.api.registry.policy = None  # as before the first report of the router
    graph.api.registry.update_router(RouterState(None, "the folder is missing"))

    card = await PolicyCard(graph.api.registry).read()

    assert set(card.pop("about")) == set(NAMES)
    assert card == {"policy_id": None, "prices": {}, "preferences": None, "why": ["the folder is missing"]}


async def test_report_over_the_size_limit_is_not_read(
    page: tuple[Graph, httpx.AsyncClient], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, http = page
    folder = Folder(tmp_path, monkeypatch)
    folder.report(policy_id=folder.policy_id, padding="x" * MAX_REPORT_BYTES)
    graph.api.registry.update_router(RouterState(policy_view(folder.policy_id, "policy"), None))

    card = (await http.get("/page/data/policy")).json()

    assert card["report"] is None
    assert "is larger than" in card["why"][0]
