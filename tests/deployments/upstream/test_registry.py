"""Experts of the configuration in effect: what stays with a new one, and what is released."""

from deployments.config import ExpertTarget, IngressConfig
from deployments.upstream.registry import ExpertRegistry
from tests.deployments.fakes import FakeExpert
from tests.deployments.harness import settle


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
