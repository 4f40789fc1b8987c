"""`check` on configurations of variants: each error is named with its key and its reason."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.check.config import check_file
from cluster.check.finding import Finding
from deployments.engine_settings import ExpertArgs
from tests.cluster.configs import good, written
from tests.deployments.expert.adapter_files import adapter_folder, model_folder

EXPERTS = "to-router.Ingress.user_config.experts"
ADAPTERS = "expert-sums.Expert.user_config.adapters"


class Variants:
    """A valid configuration: one engine, its model, two adapters of it and two efforts of reasoning."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = good()
        self.app = self.config["applications"][1]
        self.engine = {"max_model_len": 512, "max_loras": 2, "max_lora_rank": 8, "reasoning_parser": "qwen3"}
        base = model_folder(folder / "base", num_hidden_layers=1, num_attention_heads=1, hidden_size=8)
        self.app["args"] |= {"model": str(base), "engine": self.engine}
        self.adapters = {name: str(adapter_folder(folder / name)) for name in ("sql", "support")}
        self.app["deployments"][0]["user_config"] = {"adapters": self.adapters}
        app = {"app": "expert-sums"}
        self.experts: dict[str, Any] = self.config["applications"][0]["deployments"][0]["user_config"][
            "experts"
        ]
        self.experts |= {
            "sql": {**app, "adapter": "sql"},
            "support": {**app, "adapter": "support"},
            "brief": {**app, "reasoning": False},  # as YAML reads a bare `off`
            "deep": {**app, "reasoning": "high", "thinking_tokens": 2048},
        }

    def findings(self) -> list[Finding]:
        return check_file(written(self.config, self.folder), policy=False)


Break = Callable[[Variants], object]

BROKEN: dict[str, tuple[Break, str, str]] = {
    "two names that do not differ": (
        lambda v: v.experts.update(other={"app": "expert-sums", "adapter": "sql"}),
        EXPERTS.removesuffix(".experts"),
        "sql and other are the same variant of 'expert-sums'",
    ),
    "an effort that does not exist": (
        lambda v: v.experts["deep"].update(reasoning="extreme"),
        f"{EXPERTS}.deep.reasoning",
        "'off', 'low', 'medium' or 'high'",
    ),
    "a bound on reasoning that is off": (
        lambda v: v.experts["brief"].update(thinking_tokens=64),
        f"{EXPERTS}.brief",
        "thinking_tokens bounds what",
    ),
    "a field that is no variant's": (
        lambda v: v.experts["brief"].update(set={"max_tokens": 64}),
        f"{EXPERTS}.brief.set",
        "max_tokens cannot be set",
    ),
    "an adapter elsewhere": (
        lambda v: v.experts.update(far={"url": "http://x/v1", "adapter": "sql"}),
        f"{EXPERTS}.far",
        "adapter belongs to an expert with an `app`",
    ),
    "slots that differ": (
        lambda v: (v.experts["sql"].update(max_in_flight=1), v.experts["deep"].update(max_in_flight=2)),
        EXPERTS.removesuffix(".experts"),
        "max_in_flight differs",
    ),
    "an adapter that the application lacks": (
        lambda v: v.adapters.pop("sql"),
        f"{EXPERTS}.sql.adapter",
        "has no adapter 'sql'",
    ),
    "an engine without LoRA": (
        lambda v: (v.engine.pop("max_loras"), v.engine.pop("max_lora_rank")),
        "expert-sums.args.engine.max_loras",
        "starts without LoRA",
    ),
    "an engine that cannot count reasoning": (
        lambda v: v.engine.pop("reasoning_parser"),
        f"{EXPERTS}.deep.thinking_tokens",
        "set reasoning_parser",
    ),
    "a rank too high": (
        lambda v: adapter_folder(v.folder / "sql", rank=16),
        f"{ADAPTERS}.sql",
        "its rank 16 is above max_lora_rank 8",
    ),
    "another base": (
        lambda v: adapter_folder(v.folder / "sql", shape=(99, 8)),
        f"{ADAPTERS}.sql",
        "made for another model",
    ),
    "a file that is cut off": (
        lambda v: (v.folder / "sql" / "adapter_model.safetensors").write_bytes(b"123"),
        f"{ADAPTERS}.sql",
        "is corrupt or missing",
    ),
    "slots that no GPU holds": (
        lambda v: (v.app["args"].update(accelerator="L4"), v.engine.update(max_loras=10**8)),
        "expert-sums.args.engine.max_loras",
        "lower max_loras",
    ),
    "a folder that is missing": (
        lambda v: v.adapters.update(sql="no/such/adapter"),
        f"{ADAPTERS}.sql",
        "is not on this machine",
    ),
    "an unknown key of an expert": (
        lambda v: v.app["deployments"][0]["user_config"].update(adapter={}),
        "expert-sums.Expert.user_config.adapter",
        "unknown key",
    ),
}


def test_valid_variants_have_no_findings(tmp_path: Path) -> None:
    findings = Variants(tmp_path).findings()

    assert findings == []


@pytest.mark.parametrize("case", BROKEN)
def test_each_error_of_a_variant_is_named(case: str, tmp_path: Path) -> None:
    change, key, message = BROKEN[case]
    variants = Variants(tmp_path)
    change(variants)
    errors = [(found.key, found.message) for found in variants.findings() if found.is_error]

    assert any(key in found and message in text for found, text in errors), errors


def test_adapters_on_a_cpu_are_a_warning(tmp_path: Path) -> None:
    variants = Variants(tmp_path)
    variants.app["args"]["accelerator"] = "cpu"
    (found,) = variants.findings()

    assert (found.is_error, found.key) == (False, "expert-sums.args.accelerator")
    assert "for trials only" in found.message


def test_what_vllm_does_late_or_never_is_a_warning(tmp_path: Path) -> None:
    variants = Variants(tmp_path)
    variants.engine |= {"max_loras": 1, "lora_target_modules": ["v_proj"]}
    del variants.experts["support"]
    found = {finding.key: finding.level for finding in variants.findings()}

    assert found["expert-sums.args.engine.max_loras"] == "warning"
    assert found[f"{ADAPTERS}.support"] == "warning"
    assert found[f"{ADAPTERS}.sql"] == "warning"


WRONG_ARGUMENTS: list[tuple[str, Any]] = [
    ("max_lora_rank", "high"),
    ("max_lora_rank", [8]),
    ("max_loras", "two"),
    ("max_loras", 1.5),
    ("max_cpu_loras", "many"),
    ("tensor_parallel_size", "two"),
    ("tensor_parallel_size", None),
    ("pipeline_parallel_size", {}),
    ("gpu_memory_utilization", "most"),
    ("enable_lora", "yes"),
]


@pytest.mark.parametrize(("name", "value"), WRONG_ARGUMENTS)
def test_a_wrong_engine_argument_is_one_error(name: str, value: object, tmp_path: Path) -> None:
    variants = Variants(tmp_path)
    variants.app["args"]["accelerator"] = "L4"
    variants.engine[name] = value
    errors = [found.key for found in variants.findings() if found.is_error]

    assert errors == [f"expert-sums.args.engine.{name}"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_lora_rank", None),
        ("max_loras", None),
        ("gpu_memory_utilization", None),
        ("quantization", ["awq"]),
        ("lora_target_modules", [["q_proj"]]),
    ],
)
def test_no_engine_argument_ends_a_check(name: str, value: object, tmp_path: Path) -> None:
    variants = Variants(tmp_path)
    variants.app["args"]["accelerator"] = "L4"
    variants.engine[name] = value

    assert [found.key for found in variants.findings() if found.is_error] == []


def test_an_argument_that_is_null_is_the_default(tmp_path: Path) -> None:
    engine = dict.fromkeys(("max_lora_rank", "max_loras", "tensor_parallel_size", "pipeline_parallel_size"))
    args = ExpertArgs(name="a", model=str(tmp_path), engine=engine, accelerator="cpu")

    assert (args.max_lora_rank, args.adapter_slots, args.workers) == (16, 3, 1)
