"""What the controller says of an expert's application becomes what the ingress knows of the expert."""

import asyncio
import logging
import threading
from typing import Any

import orjson
import pytest

from deployments.config import IngressConfig
from deployments.contracts.errors import ExpertUnavailable
from deployments.contracts.messages import PolicyView, RouterState
from deployments.contracts.protocols import ResponseStream
from deployments.contracts.variants import ADAPTERS_PATH
from deployments.upstream.discovery import Discovery, update
from deployments.upstream.eligibility import unavailable
from deployments.upstream.expert import ExpertState
from deployments.upstream.registry import ExpertRegistry
from tests.deployments.fakes import Clock, FakeExpert

POLICY = PolicyView("0123456789ab", ("a",), ("a",))
STATE = RouterState(policy=None, error=None)


def application(
    status: str, *replicas: str, message: str = "", deployment_message: str = ""
) -> dict[str, Any]:
    return {
        "status": status,
        "message": message,
        "deployments": {
            "Expert": {
                "message": deployment_message,
                "replicas": [{"state": replica} for replica in replicas],
            }
        },
    }


def test_replicas_are_counted_by_their_state() -> None:
    state = ExpertState()
    update(state, application("DEPLOYING", "RUNNING", "STARTING", "RECOVERING", "STOPPING"), "expert-a")

    assert (state.running, state.starting, state.stopping) == (1, 2, 1)
    assert state.why_not_ready is None
    assert not state.scaled_to_zero


def test_a_replica_that_takes_over_a_user_config_counts_as_running() -> None:
    state = ExpertState()
    update(state, application("DEPLOYING", "UPDATING"), "expert-a")

    assert (state.running, state.starting) == (1, 0)
    assert state.why_not_ready is None


def test_a_running_application_without_replicas_is_at_zero() -> None:
    state = ExpertState()
    update(state, application("RUNNING"), "expert-a")

    assert state.scaled_to_zero
    assert state.why_not_ready is None


def test_an_application_that_fails_to_start_has_a_reason() -> None:
    state = ExpertState()
    update(
        state, application("DEPLOY_FAILED", message="no room", deployment_message="pool is full"), "expert-a"
    )

    assert not state.scaled_to_zero
    assert (
        state.why_not_ready == "deploy_failed: the deployment failed; the log of the ingress has the reason"
    )


TRACEBACK = """Traceback (most recent call last):
  File "/srv/secret/engine.py", line 3, in start
RuntimeError: cannot log in with hf_token"""


@pytest.mark.parametrize("phase", ["DEPLOY_FAILED", "DEPLOYING", "UNHEALTHY"])
def test_no_exception_of_a_replica_is_in_a_reason(phase: str, caplog: pytest.LogCaptureFixture) -> None:
    state = ExpertState()
    logging.getLogger("ray.serve").propagate = True
    update(state, application(phase, message=TRACEBACK, deployment_message="/srv/x"), "expert-a")

    assert state.why_not_ready is not None
    assert state.why_not_ready.startswith(f"{phase.lower()}: the deployment failed")
    assert "hf_token" not in state.why_not_ready
    assert "hf_token" in caplog.text


def test_waiting_for_resources_stays_visible_as_a_cause() -> None:
    message = "Deployment 'Expert' has 1 replicas that have taken more than 30s to be scheduled. /srv"
    state = ExpertState()
    update(state, application("DEPLOYING", deployment_message=message), "expert-a")

    assert state.why_not_ready == "deploying: its replicas wait for resources, or take long to start"


def test_an_expert_without_an_application_is_not_ready() -> None:
    state = ExpertState(running=3, scaled_to_zero=True)
    update(state, None, "expert-a")

    assert (state.running, state.scaled_to_zero) == (0, False)
    assert state.why_not_ready == "application 'expert-a' is not deployed"


def test_a_window_is_stale_once_the_application_changes() -> None:
    state = ExpertState()
    update(state, application("RUNNING", "RUNNING"), "expert-a")
    state.context_window, state.window_is_stale = 512, False
    update(state, application("RUNNING", "RUNNING"), "expert-a")
    before = state.window_is_stale
    update(state, application("DEPLOYING", "RUNNING"), "expert-a")

    assert (before, state.window_is_stale, state.context_window) == (False, True, 512)


def registry_of(*experts: FakeExpert) -> ExpertRegistry:
    """A registry of these experts, each an application of its own."""
    fakes = {expert.model: expert for expert in experts}
    config = IngressConfig.model_validate({"experts": {name: {"app": name} for name in fakes}})
    return ExpertRegistry(config, lambda name, _: fakes[name])


def discovery(registry: ExpertRegistry, state: RouterState | Exception = STATE) -> Discovery:
    async def describe(_timeout_s: float) -> RouterState:
        if isinstance(state, Exception):
            raise state
        return state

    known = {name: application("RUNNING", "RUNNING") for name in registry.experts}
    return Discovery(registry, describe, lambda: known)


def models(max_model_len: object) -> bytes:
    return orjson.dumps({"data": [{"id": "a", "max_model_len": max_model_len}]})


async def test_the_rest_of_a_complete_response_is_its_clients_to_read() -> None:
    class ReadTwice(FakeExpert):
        async def open(self, *args: Any, **kwargs: Any) -> ResponseStream:
            stream = await super().open(*args, **kwargs)
            return ResponseStream(stream.head, self._rest([ExpertUnavailable("a", "cancelled")]))

    registry = registry_of(ReadTwice("a", models(512)))
    await discovery(registry).refresh()

    assert registry.experts["a"].state.context_window == 512


async def test_an_expert_that_hangs_keeps_no_other_from_its_window() -> None:
    another_was_read = asyncio.Event()

    async def read() -> None:
        another_was_read.set()

    hangs = FakeExpert("hangs", another_was_read.wait, models(7))
    responds = [FakeExpert(name, read, models(512)) for name in ("first", "second")]
    registry = registry_of(hangs, *responds)
    await asyncio.wait_for(discovery(registry).refresh(), 5)

    states = [expert.state for expert in registry.experts.values()]
    assert [state.context_window for state in states] == [7, 512, 512]
    assert not any(state.window_is_stale for state in states)


async def test_a_replica_reports_its_model() -> None:
    card = {"id": "a", "max_model_len": 512, "root": "acme/a", "config": {"hidden_size": 64, "path": "/x"}}
    registry = registry_of(FakeExpert("a", orjson.dumps({"data": [card]})), FakeExpert("b", models(512)))
    await discovery(registry).refresh()

    states = [expert.state for expert in registry.experts.values()]
    assert [state.model for state in states] == ["acme/a", None]
    assert [state.shape for state in states] == [{"hidden_size": 64}, None]


@pytest.mark.parametrize("body", [b"no JSON", b"[]", b'{"data": []}', models("many"), models(None)])
async def test_a_window_that_cannot_be_read_is_read_again_later(body: bytes) -> None:
    registry = registry_of(FakeExpert("a", body))
    await discovery(registry).refresh()
    state = registry.experts["a"].state
    assert (state.context_window, state.window_is_stale) == (None, True)
    registry.experts["a"].client.parts = [models(512)]  # type: ignore[attr-defined]
    await discovery(registry).refresh()

    assert (state.context_window, state.window_is_stale) == (512, False)


async def test_a_failing_expert_has_no_window_and_the_refresh_goes_on() -> None:
    registry = registry_of(FakeExpert("a", ExpertUnavailable("a", "gone")), FakeExpert("b", models(512)))
    await discovery(registry).refresh()

    assert [expert.state.context_window for expert in registry.experts.values()] == [None, 512]


@pytest.mark.parametrize("error", [TimeoutError(), ConnectionError("gone")])
async def test_a_router_that_does_not_respond_leaves_its_last_policy(error: Exception) -> None:
    registry = registry_of(FakeExpert("a", models(512)))
    await discovery(registry, RouterState(POLICY, None)).refresh()
    await discovery(registry, error).refresh()

    assert registry.policy == POLICY
    assert registry.router_error == f"the router does not respond ({type(error).__name__})"


async def test_an_expert_at_a_url_is_ready_without_an_application() -> None:
    config = IngressConfig.model_validate({"experts": {"a": {"url": "http://a/v1"}}})
    registry = ExpertRegistry(config, lambda name, _: FakeExpert(name))
    await discovery(registry).refresh()

    assert registry.experts["a"].state.why_not_ready is None


async def test_a_hanging_controller_has_one_call_at_a_time(hang: threading.Event) -> None:
    begun = []

    def hangs() -> dict[str, Any]:
        begun.append(1)
        hang.wait()
        return {"a": application("RUNNING", "RUNNING")}

    async def describe(_timeout_s: float) -> RouterState:
        return STATE

    registry = registry_of(FakeExpert("a", models(512)))
    found = Discovery(registry, describe, hangs, timeout_s=0.02)
    for _ in range(5):
        with pytest.raises(TimeoutError):
            await found.refresh()
    assert len(begun) == 1
    hang.set()
    await Discovery(registry, describe, hangs, timeout_s=5).refresh()

    assert registry.experts["a"].state.running == 1


async def adapters_read() -> None:
    """Wait for the readings of adapters, which no refresh waits for."""
    await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))


@pytest.mark.parametrize(
    ("reported", "error"),
    [
        ({"sql": None}, None),
        ({"sql": "its rank 64 is above 16"}, "its rank 64 is above 16"),
        ({}, "the application has no such adapter"),
    ],
)
async def test_an_adapter_that_is_not_loaded_is_found(reported: dict[str, str], error: str | None) -> None:
    config = IngressConfig.model_validate({"experts": {"v": {"app": "a", "adapter": "sql"}}})
    fake = FakeExpert("v", orjson.dumps({"adapters": reported}))
    registry = ExpertRegistry(config, lambda _name, _target: fake)

    async def describe(_timeout_s: float) -> RouterState:
        return STATE

    await Discovery(registry, describe, lambda: {"a": application("RUNNING", "RUNNING")}).refresh()
    await adapters_read()

    assert registry.experts["v"].adapter_error == error


@pytest.mark.parametrize("body", [b"no JSON", b"[]", b'{"error": {}}', b'{"adapters": 1}'])
async def test_a_report_that_cannot_be_read_changes_nothing(body: bytes) -> None:
    config = IngressConfig.model_validate({"experts": {"v": {"app": "a", "adapter": "sql"}}})
    registry = ExpertRegistry(config, lambda _name, _target: FakeExpert("v", body))
    registry.experts["v"].adapter_error = "as before"

    async def describe(_timeout_s: float) -> RouterState:
        return STATE

    await Discovery(registry, describe, lambda: {"a": application("RUNNING", "RUNNING")}).refresh()
    await adapters_read()

    assert registry.experts["v"].adapter_error == "as before"


async def test_no_refresh_waits_for_a_report_of_adapters() -> None:
    config = IngressConfig.model_validate({"experts": {"v": {"app": "a", "adapter": "sql"}}})
    asked = []

    class Hangs(FakeExpert):
        async def open(self, method: str, path: str, *_: Any, **__: Any) -> Any:
            if path == ADAPTERS_PATH:
                asked.append(path)
                await asyncio.Event().wait()
            raise ExpertUnavailable("v", "not read here")

    registry = ExpertRegistry(config, lambda _name, _target: Hangs("v"))

    async def describe(_timeout_s: float) -> RouterState:
        return STATE

    discovery = Discovery(registry, describe, lambda: {"a": application("RUNNING", "RUNNING")})
    for _ in range(3):
        await discovery.refresh()
        await asyncio.sleep(0)

    assert asked == [ADAPTERS_PATH]


class Replicas(FakeExpert):
    """Replicas of one engine, each with its own report of adapters; a read reaches the next in `order`."""

    def __init__(self, **reports: dict[str, str | None]) -> None:
        super().__init__("v")
        self.reports, self.order, self.reads = reports, list(reports), 0

    async def open(self, method: str, path: str, *args: Any, **more: Any) -> ResponseStream:
        if path != ADAPTERS_PATH:
            raise ExpertUnavailable("v", "not read here")
        name = self.order[self.reads % len(self.order)]
        self.reads += 1
        self.parts = [orjson.dumps({"adapters": self.reports[name], "replica": name})]
        return await super().open(method, path, *args, **more)


class Variant:
    """An expert with the adapter `sql`, the replicas of its engine, and discovery of them."""

    def __init__(self, replicas: Replicas) -> None:
        config = IngressConfig.model_validate({"experts": {"v": {"app": "a", "adapter": "sql"}}})
        self.replicas, self.clock = replicas, Clock()
        self.registry = ExpertRegistry(config, lambda _name, _target: replicas)
        self.states = ["RUNNING"] * len(replicas.reports)

        async def describe(_timeout_s: float) -> RouterState:
            return STATE

        def applications() -> dict[str, Any]:
            return {"a": application("RUNNING", *self.states)}

        self.discovery = Discovery(self.registry, describe, applications, clock=self.clock)

    async def seconds(self, count: int) -> list[str | None]:
        """Refresh every second; returns why the adapter is not loaded, after each."""
        errors = []
        for _ in range(count):
            self.clock.now += 1.0
            await self.discovery.refresh()
            await adapters_read()
            errors.append(self.registry.experts["v"].adapter_error)
        return errors


async def test_an_engine_at_zero_excludes_no_adapter() -> None:
    variant = Variant(Replicas(one={"sql": "its rank 64 is above 16"}))
    (before,) = await variant.seconds(1)
    variant.states = []
    (at_zero,) = await variant.seconds(1)

    assert (before, at_zero) == ("its rank 64 is above 16", None)
    assert unavailable(variant.registry) == {}


async def test_one_replica_that_lacks_an_adapter_excludes_no_expert(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "ray.serve")
    variant = Variant(Replicas(one={"sql": None}, two={"sql": "it is being loaded"}))

    assert set(await variant.seconds(6)) == {None}
    assert caplog.text == ""


async def test_an_adapter_that_no_replica_has_is_excluded_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, "ray.serve")
    variant = Variant(Replicas(one={"sql": "no space"}, two={"sql": "it is being loaded"}))

    assert set(await variant.seconds(6)) == {"no space"}
    assert caplog.text.count("is not loaded") == 1


async def test_the_report_of_an_ended_replica_does_not_count() -> None:
    variant = Variant(Replicas(one={"sql": None}, two={"sql": "no space"}))
    await variant.seconds(2)
    variant.replicas.order, variant.states = ["two"], ["RUNNING"]

    assert await variant.seconds(1) == ["no space"]


async def test_what_is_loaded_is_read_rarely() -> None:
    variant = Variant(Replicas(one={"sql": None}))
    await variant.seconds(61)

    assert variant.replicas.reads == 3


async def test_a_change_of_the_replicas_is_read_at_once() -> None:
    variant = Variant(Replicas(one={"sql": None}))
    await variant.seconds(2)
    variant.states.append("RUNNING")
    await variant.seconds(2)

    assert variant.replicas.reads == 2


async def test_a_missing_adapter_is_read_every_second() -> None:
    variant = Variant(Replicas(one={"sql": "it is being loaded"}))
    await variant.seconds(3)
    variant.replicas.reports["one"] = {"sql": None}
    (loaded,) = await variant.seconds(1)

    assert (variant.replicas.reads, loaded) == (4, None)
