"""The graph on one screen: what `import_path` in serve_config.yaml names.

One application for ingress and router, one for each expert; handles join them.
Shape comes from `args`; replicas and autoscaling belong in `deployments[]` and are not set here.

Does without `from __future__ import annotations`: Ray Serve reads the builders' annotations, and
a string there would make it pass a plain dict, unchecked.
"""

from typing import Any

from ray import serve
from starlette.middleware import Middleware

from deployments.config import AppArgs
from deployments.engine_settings import EXPERT_DEPLOYMENT, ExpertArgs
from deployments.ingress.body_budget import BodyBudget
from deployments.ingress.middleware import ServeBoundaryMiddleware
from deployments.placement import actor_options
from deployments.replica import served_object
from deployments.simulated.args import SimulatedArgs
from deployments.simulated.placement import simulated_options

BODIES_IN_PROXY = BodyBudget(limit=256 * 1024 * 1024, max_body_bytes=1024 * 1024 * 1024, max_wait_s=30.0)
"""In a proxy, which has no ingress in its process: bodies up to the largest value of `max_body_mib`."""


def middlewares() -> list[Middleware]:
    """The middleware around Serve's HTTP server, by `RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH`.

    Serve imports it from here, as cluster/transport.env says: a name that outlives moves of files.
    """
    return [Middleware(ServeBoundaryMiddleware, bodies=_bodies)]


def _bodies() -> BodyBudget:
    bodies: BodyBudget = getattr(served_object(), "bodies", BODIES_IN_PROXY)
    return bodies


def build_app(args: AppArgs) -> Any:
    """The application `to-router`: the ingress in front, the router beside it."""
    from deployments.ingress.deployment import Ingress
    from deployments.routing.deployment import Router

    router = serve.deployment(
        Router,
        name="Router",
        ray_actor_options=actor_options(
            args.router.pool, num_cpus=args.router.num_cpus, num_gpus=args.router.num_gpus
        ),
        max_replicas_per_node=args.router.max_replicas_per_node,
    ).bind(args.router)
    return serve.deployment(
        serve.ingress()(Ingress),
        name="Ingress",
        ray_actor_options=actor_options(args.ingress.pool, num_cpus=args.ingress.num_cpus),
        max_replicas_per_node=args.ingress.max_replicas_per_node,
        graceful_shutdown_timeout_s=args.ingress.request_timeout_s,
    ).bind(args.ingress, router)


def build_expert(args: ExpertArgs) -> Any:
    """The application of one expert, `expert-<name>`."""
    from deployments.expert.deployment import build

    return build(args)


def build_simulated(args: SimulatedArgs) -> Any:
    """The application of one simulated expert, `expert-<name>`: for tests and load tests."""
    from deployments.simulated.deployment import SimulatedExpert

    return serve.deployment(SimulatedExpert, name=EXPERT_DEPLOYMENT, **simulated_options(args)).bind(args)
