"""`/health`, `/ready` and the gauges, through the API."""

from tests.deployments.harness import IngressHarness


async def test_a_rejected_configuration_is_not_ready(harness: IngressHarness) -> None:
    assert (await harness.http.get("/ready")).status_code == 200
    harness.api.reject("limits.max_in_flight: too small")
    response = await harness.http.get("/ready")

    assert response.status_code == 503
    assert response.json()["parts"]["ingress"] == {"ready": False, "why": "limits.max_in_flight: too small"}
    assert (await harness.http.get("/health")).json() == {"status": "ok"}


async def test_the_next_valid_configuration_is_ready_again(harness: IngressHarness) -> None:
    harness.api.reject("limits.max_in_flight: too small")
    harness.api.apply(harness.api.registry.config)

    assert (await harness.http.get("/ready")).json()["ready"] is True


async def test_gauges_of_experts_that_are_gone_go_too(harness: IngressHarness) -> None:
    harness.api.reject("why")
    rejected = harness.api.exposition()
    config = harness.api.registry.config
    small = {"small": config.experts["small"]}
    harness.api.apply(config.model_copy(update={"experts": small}))
    text = harness.api.exposition()

    assert b'to_router_config_refused{deployment="Ingress"} 1.0' in rejected
    assert b'to_router_config_refused{deployment="Ingress"} 0.0' in text
    assert b'to_router_expert_in_flight{expert="small"}' in text
    assert b'to_router_expert_in_flight{expert="large"}' not in text
