"""`/v1/models`: names, cards, and what a key may see."""

from deployments.ingress.models import model_card, model_names
from deployments.limits.keys import Caller
from tests.deployments.harness import IngressHarness


async def test_a_key_sees_its_experts_only(harness: IngressHarness) -> None:
    registry = harness.api.registry

    assert model_names(registry, None) == ["auto", "auto-cheap", "small", "large"]
    assert model_names(registry, Caller("k", experts=frozenset({"large"}))) == ["auto", "auto-cheap", "large"]


async def test_auto_has_the_largest_context_window() -> None:
    harness = IngressHarness(small={"context_window": 512}, large={"context_window": 1024})
    registry = harness.api.registry

    assert model_card(registry, "small")["max_model_len"] == 512
    assert model_card(registry, "auto")["max_model_len"] == 1024
    assert model_card(registry, "auto")["owned_by"] == "to-router"


async def test_a_model_without_any_known_window_has_none(harness: IngressHarness) -> None:
    assert model_card(harness.api.registry, "auto")["max_model_len"] is None
    assert (await harness.http.get("/v1/models/small")).json()["id"] == "small"
    assert (await harness.http.get("/v1/models/no-such")).json()["error"]["code"] == "model_not_found"


async def test_an_expert_shows_the_model_that_its_replica_reports(harness: IngressHarness) -> None:
    registry = harness.api.registry
    state = registry.experts["small"].state
    state.model, state.shape = "acme/small", {"hidden_size": 64}

    assert (
        model_card(registry, "small").items() >= {"root": "acme/small", "config": {"hidden_size": 64}}.items()
    )
    assert not {"root", "config"} & model_card(registry, "large").keys()
