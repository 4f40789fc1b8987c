"""An expert's application is built without vLLM, and is the one Ray Serve LLM would build."""

import asyncio
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deployments.config import REQUEST_TIMEOUT_S
from deployments.engine_settings import ExpertArgs
from deployments.expert.adapter_folder import AdapterRejectedError
from deployments.placement import HEALTH_CHECK_PERIOD_S, expert_options, shares_a_process

pytest.importorskip("vllm")

SHAPES: dict[str, dict[str, Any]] = {
    "cpu": {"accelerator": "cpu", "cpus_per_worker": 0.1},
    "cpu with its cache set": {"accelerator": "cpu", "engine": {"kv_cache_memory_bytes": 1 << 27}},
    "one gpu": {"accelerator": "gpu"},
    "a part of a gpu": {"accelerator": "gpu", "gpus_per_worker": 0.5, "environment": {"A": "b"}},
    "two of a type, by label": {
        "accelerator": "H100",
        "engine": {"tensor_parallel_size": 2},
        "pool": {"labels": {"pool": "math"}},
    },
    "two stages, by resource": {
        "accelerator": "gpu",
        "engine": {"pipeline_parallel_size": 2},
        "pool": {"resources": {"math": 1}},
    },
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_options_are_those_of_ray_serve_llms_builder(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray
    from ray.llm._internal.serve.core.server.builder import DEFAULT_DEPLOYMENT_OPTIONS
    from ray.serve.llm.deployment import LLMServer

    from deployments.expert.engine import llm_config

    def task() -> SimpleNamespace:
        return SimpleNamespace(runtime_env={"working_dir": "gcs://x"})

    monkeypatch.setattr(ray, "get_runtime_context", task)
    args = ExpertArgs(name="words", model="cluster/local/experts/words", **SHAPES[shape])
    theirs = DEFAULT_DEPLOYMENT_OPTIONS | LLMServer.get_deployment_options(llm_config(args))
    # Ours on purpose:
    theirs["health_check_period_s"] = HEALTH_CHECK_PERIOD_S
    theirs["graceful_shutdown_timeout_s"] = REQUEST_TIMEOUT_S
    theirs["placement_group_bundles"] = [
        {resource: amount for resource, amount in bundle.items() if amount}
        for bundle in theirs["placement_group_bundles"]
    ]
    ours = expert_options(args, runtime_env=task().runtime_env)
    selector = ours.pop("placement_group_bundle_label_selector", None)
    assert ours == theirs
    assert selector == ([{"pool": "math"}] * 2 if "label" in shape else None)


def test_building_an_application_imports_neither_vllm_nor_torch() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, deployments.app, deployments.expert.deployment; "
            "print({'vllm', 'torch'} & sys.modules.keys())",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("model", "fetched"), [("cluster/local/experts/words", False), ("some/hub-id", True)]
)
async def test_a_folder_is_not_fetched_and_a_hub_id_is(model: str, fetched: bool) -> None:
    from deployments.expert.engine import LocalFolder, llm_config

    config = llm_config(ExpertArgs(name="words", model=model, accelerator="cpu"))
    callback = LocalFolder(llm_config=config)
    await callback.on_before_node_init()
    assert callback.ctx.run_init_node is fetched


ON_CPU = {"name": "words", "model": "cluster/local/experts/words", "accelerator": "cpu"}


@pytest.mark.parametrize(
    ("change", "shares"),
    [
        ({}, True),
        ({"accelerator": "gpu"}, False),
        ({"engine": {"tensor_parallel_size": 2}}, False),
        ({"environment": {"VLLM_CPU_OMP_THREADS_BIND": "0-3"}}, False),
    ],
)
def test_only_a_single_worker_on_a_cpu_with_unbound_threads_shares_the_cores_process(
    change: dict[str, Any], shares: bool
) -> None:
    assert shares_a_process(ExpertArgs.model_validate(ON_CPU | change)) is shares


def test_an_engine_in_one_process_runs_its_worker_in_the_core() -> None:
    from ray.llm._internal.serve.engines.vllm.vllm_engine import VLLMEngine
    from transformers import PretrainedConfig
    from vllm.v1.executor.abstract import Executor
    from vllm.v1.executor.uniproc_executor import UniProcExecutor

    from deployments.expert.engine import OneProcessEngine

    started: list[Any] = []
    client = SimpleNamespace(logger_manager=SimpleNamespace(stat_loggers=[]))

    def start(_: VLLMEngine, *asked: Any) -> Any:
        started.append(asked)
        return client

    model = SimpleNamespace(hf_config=PretrainedConfig(hidden_size=64))
    config = SimpleNamespace(
        parallel_config=SimpleNamespace(distributed_executor_backend="mp"), model_config=model
    )
    engine = OneProcessEngine.__new__(OneProcessEngine)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VLLMEngine, "_start_async_llm_engine", start)
        found = engine._start_async_llm_engine("args", config, "group")

    assert started == [("args", config, "group")]
    assert Executor.get_class(config) is UniProcExecutor
    assert found is client
    client.logger_manager.stat_loggers[0].record(None, None, mm_cache_stats=None, engine_idx=0)
    assert engine.counter.steps == 1
    assert engine.shape["hidden_size"] == 64


def test_an_engine_starts_with_lora_where_adapters_may_come() -> None:
    from deployments.expert.engine import llm_config

    plain = llm_config(ExpertArgs.model_validate(ON_CPU))
    null = {"max_lora_rank": None, "max_cpu_loras": None}
    lora = llm_config(ExpertArgs.model_validate({**ON_CPU, "engine": {"max_loras": 2, **null}}))

    assert "enable_lora" not in plain.engine_kwargs
    slots = 5  # on a CPU, one stays empty
    assert lora.engine_kwargs == {**plain.engine_kwargs, "max_loras": slots, "enable_lora": True}


def test_the_data_type_of_an_engine_is_decided_at_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    from deployments.expert import engine

    monkeypatch.setattr(engine, "dtype_of", lambda args: f"that of {args.name}")

    assert engine.llm_config(ExpertArgs.model_validate(ON_CPU)).engine_kwargs["dtype"] == "that of words"


async def test_adapters_are_loaded_by_vllms_own_list_of_models() -> None:
    from vllm.entrypoints.openai.models.serving import OpenAIServingModels

    from deployments.expert.engine import LoadedModels

    requests: list[Any] = []
    inside: list[int] = []

    class Engine:
        def __init__(self) -> None:
            self.output_processor = SimpleNamespace(request_states={})

        async def add_lora(self, request: Any) -> None:
            requests.append(request)
            if "bad" in request.lora_name:
                raise ValueError("no such weights")
            inside.append(request.lora_int_id)

        async def remove_lora(self, lora_id: int) -> bool:
            assert not self.output_processor.request_states
            inside.remove(lora_id)
            return True

    models = OpenAIServingModels.__new__(OpenAIServingModels)
    models.lora_requests, models.lora_resolver_lock = {}, defaultdict(asyncio.Lock)
    models.lora_id_counter = SimpleNamespace(inc=lambda _: len(requests) + 1)
    models.registry = SimpleNamespace(is_base_model=lambda _: False)
    models.engine_client = Engine()
    loaded = LoadedModels(models)
    await loaded.load("sql@0123", Path("/adapters/sql"))
    with pytest.raises(AdapterRejectedError, match="no such weights"):
        await loaded.load("bad@0123", Path("/adapters/bad"))
    has, in_engine = dict(models.lora_requests), list(inside)
    running = models.engine_client.output_processor.request_states
    running["aborted"] = SimpleNamespace(lora_name="sql@0123")
    unloading = asyncio.create_task(loaded.unload("sql@0123"))
    await asyncio.sleep(0)
    running.clear()
    await unloading

    assert in_engine == [has["sql@0123"].lora_int_id]
    assert inside == []  # vLLM's own list forgets the name only: the weights would keep their slot
    assert [(name, request.lora_path) for name, request in has.items()] == [("sql@0123", "/adapters/sql")]
    assert models.lora_requests == {}
    with pytest.raises(AdapterRejectedError, match="cannot be found"):
        await loaded.unload("sql@0123")
