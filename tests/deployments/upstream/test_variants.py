"""Several experts on one engine: dispatch, eligibility and readiness."""

from typing import Any

import orjson

from deployments.config import IngressConfig
from deployments.contracts.call_order import CallOrder
from deployments.contracts.deadlines import Deadline
from deployments.contracts.errors import ExpertUnavailable
from deployments.contracts.messages import ReplicaLoad
from deployments.contracts.requests import InferenceRequest, parse
from deployments.upstream.attempts import OpenedResponse
from deployments.upstream.circuit_breaker import FAILURES_TO_OPEN
from deployments.upstream.dispatcher import Dispatcher
from deployments.upstream.eligibility import exclusions, readiness, unavailable
from deployments.upstream.registry import ExpertRegistry
from router.core import Decision
from tests.deployments.fakes import Clock, FakeExpert, answer

NAMES = ("qwen", "thinking", "sql", "support", "other")


class Engines:
    """One engine with three variants, and another one."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.fakes = {name: FakeExpert(name) for name in NAMES}
        app = {"app": "expert-qwen"}
        experts = {
            "qwen": {**app, "max_in_flight": 1},
            "thinking": {**app, "reasoning": "high"},
            "sql": {**app, "adapter": "sql"},
            "support": {**app, "adapter": "support"},
            "other": {"app": "expert-other"},
        }
        config = IngressConfig.model_validate({"experts": experts})
        self.registry = ExpertRegistry(config, lambda name, _: self.fakes[name], clock=self.clock)
        for expert in self.registry.experts.values():
            expert.state.running, expert.state.why_not_ready = 1, None
        self.dispatcher = Dispatcher(self.registry, clock=self.clock)

    async def open(self, *ranking: str, text: str = "hi") -> OpenedResponse:
        order = CallOrder(ranking, "routed", True, Decision(ranking, {}, "0123456789ab"))
        return await self.dispatcher.open(request(text=text), order, (), Deadline(30.0, self.clock))

    def away(self) -> set[str]:
        return set(unavailable(self.registry))


def request(path: str = "/v1/chat/completions", *, text: str = "hi", **fields: Any) -> InferenceRequest:
    query = (
        {"prompt": text} if path == "/v1/completions" else {"messages": [{"role": "user", "content": text}]}
    )
    return parse(path, orjson.dumps({"model": "auto", **query, **fields}), max_messages=8)


async def test_a_response_names_the_variant_that_answered() -> None:
    engines = Engines()
    engines.fakes["sql"].parts = [answer("sql@0123456789ab")]
    opened = await engines.open("sql", "other")

    assert opened.expert == "sql"
    assert orjson.loads(opened.stream.head.body)["model"] == "sql"


async def test_a_full_engine_has_no_slot_for_any_of_its_variants() -> None:
    engines = Engines()
    first = await engines.open("qwen")
    second = await engines.open("sql", "support", "other")

    assert second.expert == "other"
    assert [attempt.expert for attempt in second.attempts] == ["other"]
    first.slot.release()
    assert (await engines.open("sql", "other")).expert == "sql"


async def test_the_load_of_a_replica_is_that_of_all_its_variants() -> None:
    engines = Engines()
    engines.fakes["sql"].load = ReplicaLoad(4, 6)
    await engines.open("sql")
    others = {name: expert.load.others() for name, expert in engines.registry.experts.items()}

    assert others == {"qwen": 9, "thinking": 9, "sql": 9, "support": 9, "other": 0}


async def test_an_engine_that_crashes_is_unavailable_with_all_its_variants() -> None:
    engines = Engines()
    variants = NAMES[:-1]
    for name in variants:
        engines.fakes[name].parts = [ExpertUnavailable(name, "gone")]
    away = []
    for number in range(FAILURES_TO_OPEN):
        away.append(engines.away())
        name = variants[number % len(variants)]
        (await engines.open(name, "other", text=f"{number}")).slot.release()

    assert away == [set()] * FAILURES_TO_OPEN
    assert engines.away() == set(variants)
    assert (await engines.open(*NAMES)).expert == "other"


async def test_after_a_failure_another_engine_is_called_before_its_variants() -> None:
    engines = Engines()
    for name in NAMES[:-1]:
        engines.fakes[name].parts = [ExpertUnavailable(name, "gone")]
    opened = await engines.open("sql", "support", "thinking", "other")

    assert opened.expert == "other"
    assert [attempt.expert for attempt in opened.attempts] == ["sql", "other"]


async def test_an_adapter_that_fails_leaves_its_engines_others() -> None:
    engines = Engines()
    fake = engines.fakes["sql"]
    fake.parts, fake.status = [b'{"error": {"message": "adapter"}}'], 500
    for number in range(FAILURES_TO_OPEN):
        (await engines.open("sql", "other", text=f"{number}")).slot.release()

    assert engines.away() == {"sql"}


def test_an_adapter_that_is_not_loaded_is_excluded_and_not_ready() -> None:
    engines = Engines()
    engines.registry.experts["sql"].adapter_error = "its rank 64 is above max_lora_rank 16"
    reasons = exclusions(engines.registry, request(), unavailable(engines.registry), None)
    parts = readiness(engines.registry)

    assert reasons == {"sql": "its adapter is not loaded"}
    assert not parts["sql"].ready
    assert parts["sql"].why == "adapter 'sql' is not loaded: its rank 64 is above max_lora_rank 16"
    assert all(part.ready for name, part in parts.items() if name in {"qwen", "thinking", "support"})


def test_a_variant_is_ineligible_where_the_endpoint_cannot_express_it() -> None:
    engines = Engines()
    reasons = exclusions(engines.registry, request("/v1/completions"), {}, None)

    assert reasons == {"thinking": "/v1/completions has no field for reasoning"}


def test_variants_hold_a_prefix_together_unless_adapter_or_system_differ() -> None:
    experts = {
        "qwen": {},
        "thinking": {"reasoning": "high"},
        "sql": {"adapter": "sql"},
        "brief": {"system": "Be brief."},
    }
    config = IngressConfig.model_validate(
        {"experts": {name: {"app": "expert-qwen", **of} for name, of in experts.items()}}
    )
    registry = ExpertRegistry(config, lambda name, _: FakeExpert(name))
    held = registry.with_shared_prefixes({"thinking": 90, "sql": 70, "gone": 5})

    assert held == {"qwen": 90, "thinking": 90, "sql": 70}
