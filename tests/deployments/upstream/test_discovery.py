"""What the controller says of an expert's application becomes what the ingress knows of the expert."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from ray.serve.schema import ReplicaDetails, ServeInstanceDetails

from deployments.config import IngressConfig
from deployments.contracts.messages import RouterState
from deployments.ingress import deployment
from deployments.upstream.discovery import see
from deployments.upstream.registry import ExpertRegistry, ExpertState
from tests.deployments.fakes import FakeExpert


def application(status: str, *replicas: str, message: str = "", told: str = "") -> dict[str, Any]:
    return {
        "status": status,
        "message": message,
        "deployments": {
            "Expert": {"message": told, "replicas": [{"state": replica} for replica in replicas]}
        },
    }


def test_replicas_are_counted_by_what_they_are_about() -> None:
    state = ExpertState()
    see(state, application("DEPLOYING", "RUNNING", "STARTING", "RECOVERING", "STOPPING"), "expert-a")

    assert (state.running, state.starting, state.stopping) == (1, 2, 1)
    assert state.why_not_ready is None
    assert not state.scaled_to_zero


def test_a_running_application_without_a_replica_sleeps() -> None:
    state = ExpertState()
    see(state, application("RUNNING"), "expert-a")

    assert state.scaled_to_zero
    assert state.why_not_ready is None


def test_an_application_that_does_not_come_up_says_why() -> None:
    state = ExpertState()
    see(state, application("DEPLOY_FAILED", message="no room", told="pool is full"), "expert-a")

    assert not state.scaled_to_zero
    assert state.why_not_ready == "deploy_failed: no room; pool is full"


def test_an_expert_without_an_application_is_not_ready() -> None:
    state = ExpertState(running=3, scaled_to_zero=True)
    see(state, None, "expert-a")

    assert (state.running, state.scaled_to_zero) == (0, False)
    assert state.why_not_ready == "application 'expert-a' is not deployed"


@pytest.mark.parametrize(
    ("model", "fields"), [(ReplicaDetails, {"state"}), (ServeInstanceDetails, {"applications"})]
)
def test_serve_still_names_what_is_read(model: Any, fields: set[str]) -> None:
    assert fields <= model.model_fields.keys()


def test_what_an_expert_said_is_stale_when_another_engine_may_answer() -> None:
    state = ExpertState()
    see(state, application("RUNNING", "RUNNING"), "expert-a")
    state.context_window, state.window_is_stale = 512, False
    see(state, application("RUNNING", "RUNNING"), "expert-a")
    before = state.window_is_stale
    see(state, application("DEPLOYING", "RUNNING"), "expert-a")

    assert (before, state.window_is_stale, state.context_window) == (False, True, 512)


async def test_an_expert_that_hangs_keeps_no_other_from_telling_its_window(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = ("hangs", "answers", "answers-too")
    config = IngressConfig.model_validate({"experts": {name: {"app": name} for name in names}})
    registry, told = ExpertRegistry(config, lambda name, _: FakeExpert(name)), asyncio.Event()

    async def window(name: str, _app: str) -> int | None:
        if name == "hangs":
            await told.wait()  # until another one was read
            return None
        told.set()
        return 512

    async def describe(_timeout_s: float) -> RouterState:
        return RouterState(policy=None, error=None)

    monkeypatch.setattr(
        deployment, "applications", lambda: {name: application("RUNNING", "RUNNING") for name in names}
    )
    monkeypatch.setattr(deployment, "_context_window", window)
    looking = SimpleNamespace(
        _api=SimpleNamespace(registry=registry), _router=SimpleNamespace(describe=describe)
    )
    await asyncio.wait_for(deployment.Ingress._look(looking), 5)

    assert [registry.experts[name].state.context_window for name in names] == [None, 512, 512]
    assert [registry.experts[name].state.window_is_stale for name in names] == [True, False, False]
