"""Where replicas run: a pool and a shape in, Serve's options out.

Pure functions; imports no Ray. An expert reserves a placement group, so its pool is named on
the *bundles*: a selector on the actor would be applied after the bundles were reserved elsewhere,
and hang. Plain deployments (ingress, router) name it on the actor.
"""

from collections.abc import Mapping
from typing import Any

from deployments.config import REQUEST_TIMEOUT_S
from deployments.engine_settings import ExpertArgs, PoolArgs

CPU_ENGINE_ENVIRONMENT = {
    # Each engine binds for itself: several on one machine would share one core.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
}
UNBOUNDED = 1_000_000_000
"""Ray Serve LLM's own default: an expert never queues and never scales unless its configuration says so."""

HEALTH_CHECK_PERIOD_S = 3
"""Serve's own is 10: for so long a dead replica would count as alive, before it is replaced."""


def actor_options(
    pool: PoolArgs | None,
    *,
    num_cpus: float,
    num_gpus: float = 0.0,
    environment: dict[str, str] | None = None,
) -> dict[str, Any]:
    """`ray_actor_options` of a plain deployment's replica."""
    options: dict[str, Any] = {"num_cpus": num_cpus}
    if num_gpus:
        options["num_gpus"] = num_gpus
    if pool is not None and pool.labels:
        options["label_selector"] = dict(pool.labels)
    if pool is not None and pool.resources:
        options["resources"] = dict(pool.resources)
    if environment:
        options["runtime_env"] = {"env_vars": dict(environment)}
    return options


def worker_bundle(args: ExpertArgs) -> dict[str, float]:
    """The resources of one engine worker."""
    bundle: dict[str, float] = {"CPU": args.cpus_per_worker} if args.cpus_per_worker else {}
    if args.accelerator != "cpu":
        bundle["GPU"] = args.gpus_per_worker
    if args.pool is not None and args.pool.resources:
        bundle |= args.pool.resources
    return bundle


def placement_group(args: ExpertArgs) -> dict[str, Any]:
    """The bundles of one replica: one for each worker of tensor and pipeline parallelism.

    A replica stays on one node while that can hold it, since tensor parallelism talks at every
    layer; only pipeline stages may spread.
    """
    pipeline = int(args.engine.get("pipeline_parallel_size", 1))
    return {
        "bundles": [worker_bundle(args) for _ in range(args.workers)],
        "strategy": "STRICT_PACK" if pipeline == 1 else "PACK",
    }


def expert_options(args: ExpertArgs, *, runtime_env: Mapping[str, Any]) -> dict[str, Any]:
    """Serve's options of an expert: those of Ray Serve LLM's builder, without its import of vLLM.

    Args:
        args: the expert.
        runtime_env: that of the task which builds the application; the replica inherits it.
    """
    group = placement_group(args)
    hint = accelerator_hint(args)
    options: dict[str, Any] = {
        # The replica itself needs nothing beside its bundles: the engine's workers do the work.
        "ray_actor_options": {
            "num_cpus": 0,
            "runtime_env": {
                **runtime_env,
                "worker_process_setup_hook": "ray.llm._internal.serve._worker_process_setup_hook",
                "env_vars": engine_environment(args),
            },
        },
        "placement_group_bundles": [bundle | hint for bundle in group["bundles"]],
        "placement_group_strategy": group["strategy"],
        "max_ongoing_requests": UNBOUNDED,
        "health_check_period_s": HEALTH_CHECK_PERIOD_S,
        "health_check_timeout_s": 10,
        "graceful_shutdown_timeout_s": REQUEST_TIMEOUT_S,
        "autoscaling_config": {"target_ongoing_requests": UNBOUNDED},
    }
    if selector := bundle_selector(args):
        options["placement_group_bundle_label_selector"] = selector
    return options


def accelerator_hint(args: ExpertArgs) -> dict[str, float]:
    """Ray's hint for a bundle that needs a type of accelerator: a small share of its resource."""
    return {} if args.accelerator in {"cpu", "gpu"} else {f"accelerator_type:{args.accelerator}": 0.001}


def bundle_selector(args: ExpertArgs) -> list[dict[str, str]] | None:
    """One label selector for each bundle, or `None` where the pool names no labels."""
    if args.pool is None or not args.pool.labels:
        return None
    return [dict(args.pool.labels) for _ in range(args.workers)]


def shares_a_process(args: ExpertArgs) -> bool:
    """Whether the only worker can run in the engine core's process: on a CPU, with unbound threads."""
    unbound = engine_environment(args).get("VLLM_CPU_OMP_THREADS_BIND") == "nobind"
    return args.accelerator == "cpu" and args.workers == 1 and unbound


def engine_environment(args: ExpertArgs) -> dict[str, str]:
    """Return the environment of a replica and its engine; the configuration's values come last."""
    if args.accelerator != "cpu":
        return dict(args.environment)
    base = dict(CPU_ENGINE_ENVIRONMENT)
    if "kv_cache_memory_bytes" not in args.engine:
        # Unset, vLLM's CPU build takes most of the machine's memory; 1 GiB is the least that this
        # variable accepts, and it would overrule the engine argument.
        base["VLLM_CPU_KVCACHE_SPACE"] = "1"
    return {**base, **args.environment}
