"""Where replicas of simulated experts run: a pool and a shape in, Serve's options out.

Pure functions; imports no Ray.
"""

from typing import Any

from deployments.config import REQUEST_TIMEOUT_S
from deployments.placement import actor_options
from deployments.simulated.args import SimulatedArgs


def simulated_bundles(args: SimulatedArgs) -> list[dict[str, float]]:
    """Return the resources that one replica of a simulated expert reserves, worker by worker."""
    pool = args.pool.resources if args.pool is not None and args.pool.resources else {}
    bundle = {"CPU": args.num_cpus, "GPU": args.num_gpus, **pool}
    return [{name: amount for name, amount in bundle.items() if amount}] * args.workers


def simulated_options(args: SimulatedArgs) -> dict[str, Any]:
    """Return Serve's options of a simulated expert: on its pool, with workers in a placement group."""
    grace = {"graceful_shutdown_timeout_s": REQUEST_TIMEOUT_S}
    if args.workers == 1:
        actor = actor_options(args.pool, num_cpus=args.num_cpus, num_gpus=args.num_gpus)
        return {"ray_actor_options": actor, **grace}
    options: dict[str, Any] = {
        **grace,
        "ray_actor_options": {"num_cpus": 0},
        "placement_group_bundles": [dict(bundle) for bundle in simulated_bundles(args)],
        "placement_group_strategy": "STRICT_PACK",
    }
    if args.pool is not None and args.pool.labels:
        options["placement_group_bundle_label_selector"] = [dict(args.pool.labels)] * args.workers
    return options
