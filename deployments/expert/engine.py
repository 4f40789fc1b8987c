"""vLLM behind Ray Serve LLM, as one expert's replica starts it.

The only module that imports `ray.serve.llm`, and so vLLM: ten seconds of a processor and 0.4 GB.
It is loaded where an engine runs; building an application does without it.
"""

import asyncio
from pathlib import Path
from typing import Any

from ray.llm._internal.common.callbacks.base import CallbackBase
from ray.llm._internal.serve.engines.vllm.vllm_engine import VLLMEngine
from ray.serve.llm import LLMConfig
from ray.serve.llm.deployment import LLMServer
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.entrypoints.serve.lora.protocol import LoadLoRAAdapterRequest, UnloadLoRAAdapterRequest
from vllm.v1.metrics.loggers import AggregateStatLoggerBase

from deployments.contracts.messages import ReplicaLoad
from deployments.engine_settings import LORA_ARGUMENTS, ExpertArgs
from deployments.expert.adapter_folder import AdapterRejectedError
from deployments.expert.asgi import ASGIApp
from deployments.expert.cpu_dtype import dtype_of
from deployments.placement import engine_environment, placement_group, shares_a_process
from router.priors.shape import shape_of

ABORTED_POLL_S = 0.1


class LocalFolder(CallbackBase):
    """Callback by which nothing is fetched for a model in a folder.

    Ray Serve LLM has every node of the placement group download the model first, in a process
    that imports vLLM for it: as long again as starting the engine.
    """

    async def on_before_node_init(self) -> None:
        """Skip that download for a folder; Ray Serve LLM calls this before it."""
        source = self.llm_config.get_engine_config().actual_hf_model_id
        self.ctx.run_init_node = not await asyncio.to_thread(Path(source).is_dir)


class StepCounter(AggregateStatLoggerBase):
    """Counts the engine's steps: vLLM reports statistics of each, whatever it was for."""

    def __init__(self) -> None:
        self.steps = 0
        self._loads: dict[int, ReplicaLoad] = {}

    @property
    def load(self) -> ReplicaLoad | None:
        """The load after the last step, of all engines of the replica; `None` before the first."""
        loads = self._loads.values()
        if not loads:
            return None
        return ReplicaLoad(
            sum(load.running for load in loads),
            sum(load.waiting for load in loads),
            max(load.kv_use for load in loads),
        )

    def record(self, scheduler_stats: Any = None, *args: Any, engine_idx: int = 0, **kwargs: Any) -> None:
        """Count a step and keep its load; vLLM calls this after it."""
        self.steps += 1
        if scheduler_stats is not None:
            self._loads[engine_idx] = ReplicaLoad(
                scheduler_stats.num_running_reqs,
                scheduler_stats.num_waiting_reqs,
                scheduler_stats.kv_cache_usage,
            )

    def log_engine_initialized(self) -> None:
        """Nothing to log."""


class CountingEngine(VLLMEngine):
    """An engine whose steps are counted, and whose model's shape is known."""

    counter: StepCounter
    shape: dict[str, Any]

    def _start_async_llm_engine(self, args: Any, config: Any, placement_group: Any) -> Any:
        self.shape = shape_of(config.model_config.hf_config.to_dict())
        client = super()._start_async_llm_engine(args, config, placement_group)
        self.counter = StepCounter()
        if client.logger_manager is not None:  # vLLM takes no further logger while it constructs the engine
            client.logger_manager.stat_loggers.append(self.counter)
        return client


class OneProcessEngine(CountingEngine):
    """An engine whose single worker lives in the engine core's process.

    On a CPU vLLM gives even a single worker a process of its own, because only so can it bind that
    worker's threads to cores; where nothing is bound, the second process costs two hops through
    shared memory a step, 0.4 GB and one more start.
    """

    def _start_async_llm_engine(self, args: Any, config: Any, placement_group: Any) -> Any:
        config.parallel_config.distributed_executor_backend = "uni"
        return super()._start_async_llm_engine(args, config, placement_group)


class LoadedModels:
    """The adapters of a running engine, by vLLM's own list of models.

    Its routes for them stay off: they would load any folder for any caller.

    Args:
        models: `OpenAIServingModels` of the engine's app.
    """

    def __init__(self, models: Any) -> None:
        self._models = models

    async def load(self, name: str, folder: Path) -> None:
        """Load an adapter; see `AdapterEngine.load`."""
        request = LoadLoRAAdapterRequest(lora_name=name, lora_path=str(folder))
        _check(await self._models.load_lora_adapter(request))

    async def unload(self, name: str) -> None:
        """Remove an adapter; see `AdapterEngine.unload`.

        vLLM's list would forget the name only, and the weights keep their slot. A step with a request for it
        would load it again from its folder, so requests that are being aborted must have ended.
        """
        engine, request = self._models.engine_client, self._models.lora_requests.get(name)
        while any(state.lora_name == name for state in engine.output_processor.request_states.values()):  # noqa: ASYNC110 - vLLM has no event for it
            await asyncio.sleep(ABORTED_POLL_S)
        if request is not None:
            await engine.remove_lora(request.lora_int_id)
        _check(await self._models.unload_lora_adapter(UnloadLoRAAdapterRequest(lora_name=name)))


def loaded_models(app: Any) -> LoadedModels:
    """Return the adapters of the engine behind vLLM's app."""
    return LoadedModels(app.state.openai_serving_models)


def _check(response: Any) -> None:
    if isinstance(response, ErrorResponse):
        raise AdapterRejectedError(f"vLLM rejected it: {response.error.message}")


def llm_config(args: ExpertArgs) -> LLMConfig:
    """Return Ray Serve LLM's configuration of an expert."""
    on_cpu = args.accelerator == "cpu"
    return LLMConfig(
        model_loading_config={"model_id": args.name, "model_source": args.model_source},
        engine_kwargs=engine_arguments(args),
        accelerator_type=None if args.accelerator in {"cpu", "gpu"} else args.accelerator,
        accelerator_config={"kind": "cpu"} if on_cpu else None,
        placement_group_config=placement_group(args),
        runtime_env={"env_vars": engine_environment(args)},
        callback_config={"callback_class": LocalFolder},
        # The replica itself needs nothing beside its bundles: the engine's workers do the work.
        deployment_config={"ray_actor_options": {"num_cpus": 0}},
        log_engine_metrics=False,  # the engine's own registry is read through its app's /metrics
    )


def engine_arguments(args: ExpertArgs) -> dict[str, Any]:
    """The configured arguments of vLLM, the data type where they leave it open, and what adapters need."""
    changed = {**args.engine, "dtype": dtype_of(args)}
    if not args.takes_adapters:
        return changed
    # vLLM takes no null for these, which to a configuration is the default.
    changed = {
        name: value for name, value in changed.items() if value is not None or name not in LORA_ARGUMENTS
    }
    changed |= {"enable_lora": True, "max_loras": args.adapter_slots}
    if "max_cpu_loras" in changed:  # vLLM requires as many as slots
        changed["max_cpu_loras"] = max(changed["max_cpu_loras"], changed["max_loras"])
    return changed


async def start(args: ExpertArgs) -> tuple[Any, ASGIApp, StepCounter, dict[str, Any]]:
    """Start an engine.

    Returns:
        The engine's server, vLLM's own OpenAI app in front of it, the counter of the engine's steps, and the
        shape of its model.
    """
    # Ray Serve LLM's constructor is a coroutine that does these two steps.
    engine_class = OneProcessEngine if shares_a_process(args) else CountingEngine
    server = LLMServer.sync_init(llm_config(args), engine_cls=engine_class)
    await server.start()
    engine = server.engine
    return server, await server.__serve_build_asgi_app__(), engine.counter, engine.shape
