"""Settings of variants: which are valid, alone and beside others of their application."""

from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from deployments.config import ExpertTarget, IngressConfig
from deployments.contracts.variants import Variant
from deployments.engine_settings import ExpertArgs, ExpertConfig


def target(**fields: Any) -> ExpertTarget:
    return ExpertTarget.model_validate({"app": "expert-qwen", **fields})


def ingress(**experts: Any) -> IngressConfig:
    return IngressConfig.model_validate({"experts": experts})


def test_a_bare_off_in_yaml_switches_reasoning_off() -> None:
    fields = yaml.safe_load("{app: expert-qwen, reasoning: off}")

    assert ExpertTarget.model_validate(fields).variant == Variant(reasoning="off")


def test_an_expert_without_differences_is_no_variant() -> None:
    assert target(max_in_flight=3).variant is None
    assert target(adapter="sql").variant == Variant(adapter="sql")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"app": None, "url": "http://x/v1", "adapter": "sql"}, "adapter belongs to an expert with an `app`"),
        ({"adapter": "a/b"}, "adapter"),
        ({"reasoning": "extreme"}, "reasoning"),
        ({"reasoning": True}, "reasoning"),
        ({"reasoning": "off", "thinking_tokens": 5}, "thinking_tokens bounds what"),
        ({"thinking_tokens": 0}, "thinking_tokens"),
        ({"set": {"model": "x"}}, "model cannot be set"),
        ({"set": {"max_tokens": 5, "n": 2}}, "max_tokens, n cannot be set"),
        ({"set": {"seed": None}}, "seed is null"),
        ({"system": ""}, "system"),
        ({"adapter": "sql", "force": True}, "force has no effect"),
    ],
)
def test_an_invalid_variant_is_rejected(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        target(**fields)


def test_experts_of_one_application_differ_as_variants() -> None:
    app = {"app": "expert-qwen"}
    config = ingress(qwen=app, thinking={**app, "reasoning": "high"}, sql={**app, "adapter": "sql"})

    assert config.applications() == {"expert-qwen": ["qwen", "thinking", "sql"]}
    with pytest.raises(ValidationError, match="thinking and deep are the same variant of 'expert-qwen'"):
        ingress(thinking={**app, "reasoning": "high"}, deep={**app, "reasoning": "high"})
    with pytest.raises(ValidationError, match="a and b are the same variant"):
        ingress(a=app, b=app)


def test_slots_of_an_application_are_set_at_one_of_its_experts() -> None:
    app = {"app": "expert-qwen"}
    config = ingress(qwen=app, sql={**app, "adapter": "sql", "max_in_flight": 3}, other={"app": "other"})

    assert [config.max_in_flight(name) for name in ("qwen", "sql", "other")] == [3, 3, None]
    with pytest.raises(ValidationError, match="max_in_flight differs among qwen, sql"):
        ingress(qwen={**app, "max_in_flight": 2}, sql={**app, "adapter": "sql", "max_in_flight": 3})


@pytest.mark.parametrize(
    ("engine", "takes"),
    [({}, False), ({"max_loras": 2}, True), ({"enable_lora": True}, True), ({"enable_lora": False}, False)],
)
def test_an_engine_takes_adapters_where_lora_is_configured(engine: dict[str, Any], takes: bool) -> None:
    assert ExpertArgs(name="e", model="m", engine=engine).takes_adapters is takes


def test_an_adapter_has_a_name_and_a_folder() -> None:
    assert ExpertConfig.model_validate({"adapters": {"sql": "adapters/sql"}}).adapters == {
        "sql": "adapters/sql"
    }
    with pytest.raises(ValidationError):
        ExpertConfig.model_validate({"adapters": {"sql@1": "adapters/sql"}})
    with pytest.raises(ValidationError):
        ExpertConfig.model_validate({"adapters": {"sql": ""}})


def test_on_a_cpu_one_slot_for_adapters_stays_empty() -> None:
    on = {
        kind: ExpertArgs(name="e", model="m", engine={"max_loras": 2}, accelerator=kind)
        for kind in ("cpu", "L4")
    }

    assert (on["L4"].adapter_slots, on["L4"].most_adapters) == (2, None)
    assert (on["cpu"].adapter_slots, on["cpu"].most_adapters) == (5, 4)
