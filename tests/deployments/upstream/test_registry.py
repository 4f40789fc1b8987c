"""Experts of the configuration in effect: what stays with a new one, and what is released."""

from deployments.config import ExpertTarget, IngressConfig
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
