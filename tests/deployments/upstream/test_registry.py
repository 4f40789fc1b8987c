"""Experts of the configuration in effect: what stays with a new one, and what is released."""

from typing import Any

from deployments.config import ExpertTarget, IngressConfig
from deployments.contracts.protocols import ResponseStream
from deployments.upstream.adapter_breaker import AdapterBreaker
from deployments.upstream.registry import ExpertRegistry
from tests.deployments.fakes import FakeExpert
from tests.deployments.harness import settle


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def config(**urls: str) -> IngressConfig:
    experts = {name: {"url": f"http://{host}.example/v1"} for name, host in urls.items()}
    return IngressConfig.model_validate({"experts": experts})


async def test_replaced_and_removed_clients_are_retired_and_others_stay() -> None:
    made: list[FakeExpert] = []

    def client_for(name: str, target: ExpertTarget) -> FakeExpert:
        made.append(FakeExpert(name))
        return made[-1]

    registry = ExpertRegistry(config(kept="a", moved="a", removed="a"), client_for)
    registry.experts["moved"].latency.observe("streaming", 1.0)
    registry.reconfigure(config(kept="a", moved="b"))
    await settle()

    assert [(client.model, client.retired) for client in made] == [
        ("kept", False),
        ("moved", True),
        ("removed", True),
        ("moved", False),
    ]
    assert registry.experts["moved"].client is made[-1]
    assert registry.experts["moved"].latency.ttft_ms == 1000


async def test_a_slow_time_is_not_believed_forever_by_a_limit() -> None:
    clock = Clock()
    registry = ExpertRegistry(config(one="a"), lambda name, _: FakeExpert(name), clock=clock)
    expert = registry.experts["one"]
    for _ in range(5):
        begun = expert.load.begun(100, 1, 8)
        expert.load.first_byte(begun, 8.0)
        expert.load.ended(begun, 9.0, 10, 8.0)
    expert.latency.observe("streaming", 8.0)
    before = registry.loads({}, limited=True)["one"].wait_s
    clock.now += 200
    later, priced = registry.loads({}, limited=True)["one"], registry.loads({})["one"]

    assert before > 7
    assert later.wait_s < 1 < priced.wait_s
    assert registry.ttft_ms()["one"] < 1000


async def test_the_next_responses_after_a_silence_count_most() -> None:
    clock = Clock()
    registry = ExpertRegistry(config(one="a"), lambda name, _: FakeExpert(name), clock=clock)
    load = registry.experts["one"].load
    for number in range(40):
        begun = load.begun(100, 1, 8)
        load.first_byte(begun, 8.0 + 0.2 * (number % 2))
        load.ended(begun, 9.0, 10, 8.0)
    for _ in range(8):
        clock.now += 10_000
        load.first_byte(load.begun(100, 1, 8), 0.1)

    assert registry.loads({})["one"].wait_s < 0.5


APP = {"app": "expert-qwen"}


def variants(**experts: dict[str, Any]) -> IngressConfig:
    named = {name: {**APP, **fields} for name, fields in experts.items()}
    return IngressConfig.model_validate({"experts": named})


def registry_of(config: IngressConfig) -> ExpertRegistry:
    return ExpertRegistry(config, lambda name, _: FakeExpert(name))


async def test_variants_share_their_engines_slots_state_and_breaker() -> None:
    config = variants(qwen={"max_in_flight": 2}, thinking={"reasoning": "high"}, sql={"adapter": "sql"})
    registry = registry_of(config)
    qwen, thinking, sql = registry.experts.values()
    taken = [expert.slots.try_acquire() for expert in (qwen, thinking, sql)]

    assert taken == [True, True, False]
    assert qwen.state is thinking.state is sql.state
    assert qwen.breaker is thinking.breaker
    assert isinstance(sql.breaker, AdapterBreaker)
    assert sql.breaker.engine is qwen.breaker
    assert list(registry.engines()) == ["qwen"]
    assert qwen.latency is not thinking.latency


async def test_a_new_variant_joins_the_engine_that_is_known() -> None:
    registry = registry_of(variants(qwen={}))
    before = registry.experts["qwen"]
    registry.reconfigure(variants(sql={"adapter": "sql"}, qwen={"max_in_flight": 3}))
    after = registry.experts

    assert after["sql"].slots is after["qwen"].slots is before.slots
    assert after["qwen"].breaker is before.breaker
    assert after["qwen"].client is not before.client


async def test_a_variant_of_another_adapter_begins_with_a_closed_breaker() -> None:
    registry = registry_of(variants(v={"adapter": "old"}))
    registry.experts["v"].adapter_error = "broken"
    registry.reconfigure(variants(v={"adapter": "old", "context_window": 512}))
    kept = registry.experts["v"]
    registry.reconfigure(variants(v={"adapter": "new"}))

    assert kept.adapter_error == "broken"
    assert registry.experts["v"].adapter_error is None
    assert registry.experts["v"].breaker is not kept.breaker


async def test_an_engine_scales_from_zero_once_for_all_its_variants() -> None:
    opened: list[str] = []

    class Starting(FakeExpert):
        async def open(self, *args: Any, **kwargs: Any) -> ResponseStream:
            opened.append(self.model)
            return await super().open(*args, **kwargs)

    config = variants(qwen={}, sql={"adapter": "sql"})
    registry = ExpertRegistry(config, lambda name, _: Starting(name))
    registry.experts["qwen"].state.running = 0
    registry.scale_up("qwen")
    registry.scale_up("sql")
    await settle()

    assert opened == ["qwen"]
