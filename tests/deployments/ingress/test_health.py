"""`/health`, `/ready` and the gauges, through the API."""

from pathlib import Path

import pytest

from deployments.contracts.messages import RouterState
from deployments.ingress.health import short
from tests.deployments.harness import NAMES, IngressHarness
from tests.deployments.limits.test_key_limits import bearer, with_keys


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


async def test_names_of_experts_need_a_key_where_keys_are_on(tmp_path: Path) -> None:
    harness = IngressHarness()
    key = with_keys(harness, tmp_path)
    harness.api.registry.experts["large"].state.why_not_ready = "deploying"
    stranger = await harness.http.get("/ready")
    known = await harness.http.get("/ready", headers=bearer(key))

    assert (stranger.status_code, known.status_code) == (503, 503)
    assert stranger.json()["parts"]["experts"] == {"ready": False, "why": "a key shows the reason"}
    assert not any(name in stranger.text for name in NAMES)
    assert known.json()["parts"]["large"] == {"ready": False, "why": "deploying"}


async def test_no_folder_and_no_traceback_is_in_a_reason(harness: IngressHarness) -> None:
    why = "IntegrityError: /srv/secret/policy is damaged\nTraceback (most recent call last)"
    harness.api.registry.update_router(RouterState(None, why))

    parts = (await harness.http.get("/ready")).json()["parts"]
    assert parts["router"]["why"] == "IntegrityError: …/policy is damaged"


@pytest.mark.parametrize(
    ("why", "shown"),
    [
        ("url is https://user:word@host/v1 and /a/b/c", "url is …/v1 and …/c"),
        ("'/srv/keys.json' is not readable", "'…/keys.json' is not readable"),
        ("limits.max_in_flight: 1/2 is no integer", "limits.max_in_flight: 1/2 is no integer"),
    ],
)
def test_reasons_keep_what_is_no_path(why: str, shown: str) -> None:
    assert short(why) == shown
