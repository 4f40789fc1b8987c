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
from vllm.v1.metrics.loggers import AggregateStatLoggerBase

from deployments.config import ExpertArgs
from deployments.contracts.messages import ReplicaLoad
from deployments.expert.asgi import ASGIApp
from deployments.placement import engine_environment, placement_group, shares_a_process


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
    """An engine whose steps are counted."""

    counter: StepCounter

    def _start_async_llm_engine(self, args: Any, config: Any, placement_group: Any) -> Any:
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


def llm_config(args: ExpertArgs) -> LLMConfig:
    """Return Ray Serve LLM's configuration of an expert."""
    on_cpu = args.accelerator == "cpu"
    return LLMConfig(
        model_loading_config={"model_id": args.name, "model_source": args.model_source},
        engine_kwargs=dict(args.engine),
        accelerator_type=None if args.accelerator in {"cpu", "gpu"} else args.accelerator,
        accelerator_config={"kind": "cpu"} if on_cpu else None,
        placement_group_config=placement_group(args),
        runtime_env={"env_vars": engine_environment(args)},
        callback_config={"callback_class": LocalFolder},
        # The replica itself needs nothing beside its bundles: the engine's workers do the work.
        deployment_config={"ray_actor_options": {"num_cpus": 0}},
        log_engine_metrics=False,  # the engine's own registry is read through its app's /metrics
    )


async def start(args: ExpertArgs) -> tuple[Any, ASGIApp, StepCounter]:
    """Start an engine.

    Returns:
        The engine's server, vLLM's own OpenAI app in front of it, and the counter of the engine's steps.
    """
    # Ray Serve LLM's constructor is a coroutine that does these two steps.
    engine_class = OneProcessEngine if shares_a_process(args) else CountingEngine
    server = LLMServer.sync_init(llm_config(args), engine_cls=engine_class)
    await server.start()
    return server, await server.__serve_build_asgi_app__(), server.engine.counter
