"""A graph without a configured policy serves one from priors."""

from pathlib import Path
from typing import Any

import pytest

from deployments.config import RouterArgs
from deployments.routing.deployment import Router
from deployments.routing.prior import configured_experts, prior_folder
from router.core import RouteRequest
from router.errors import InputError
from router.policy import Policy

EXPERTS = {
    "small": {"app": "expert-small"},
    "far": {"url": "https://example.org/v1", "model": "Qwen/Qwen3-32B"},
}


def graph(experts: dict[str, Any] = EXPERTS) -> dict[str, Any]:
    """Serve's applications as its controller describes them."""
    main = {
        "name": "to-router",
        "deployments": [
            {"name": "Ingress", "user_config": {"experts": experts}},
            {"name": "Router", "user_config": {"prices": {"far": {"input": 0.1, "output": 0.3}}}},
        ],
    }
    small = {"name": "expert-small", "args": {"name": "small", "model": "meta-llama/Llama-3.2-1B-Instruct"}}
    return {
        "to-router": {"deployed_app_config": main},
        "expert-small": {"deployed_app_config": small},
        "other": {"deployed_app_config": None},
    }


@pytest.fixture
def args() -> RouterArgs:
    return RouterArgs(encoder="default", device="cpu", batch_wait_ms=0)


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TO_ROUTER_STATE", str(tmp_path / "state"))


async def test_without_a_policy_the_prior_one_decides(
    args: RouterArgs, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING", logger="ray.serve")
    router = Router(args, applications=graph)

    await router.reconfigure({})
    (response,) = await router.decide([RouteRequest("Write a function that sorts a list")])
    view = router.describe().policy

    assert response.decision is not None
    assert set(response.decision.ranking) == {"small", "far"}
    assert response.decision.ranking[0] == "far"
    assert view is not None
    assert view.is_prior
    assert f"no policy is configured: {view.policy_id}, made from priors" in caplog.text
    assert view.prices["far"].output == 0.3


async def test_without_a_configuration_the_reason_is_reported(args: RouterArgs) -> None:
    router = Router(args, applications=dict)

    await router.reconfigure({})

    assert router.describe().policy is None
    assert "Ingress" in (router.describe().error or "") or "experts" in (router.describe().error or "")


def test_the_policy_is_made_once_for_the_same_experts(args: RouterArgs) -> None:
    first = prior_folder(configured_experts(graph()), args)
    again = prior_folder(configured_experts(graph()), args)
    other = prior_folder(configured_experts(graph({"far": EXPERTS["far"]})), args)

    assert first == again
    assert other != first
    assert Policy.load(other).pool.names == ("far",)


def test_a_graph_without_experts_is_an_error() -> None:
    with pytest.raises(InputError):
        configured_experts({})
