"""One application of a serve_config.yaml: its arguments, its deployments and their elasticity."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import BaseModel

from cluster.check.expert import check_expert
from cluster.check.finding import Finding
from cluster.check.numbers import AUTOSCALING, DEPLOYMENT, wrong_numbers
from cluster.check.schema import model_errors, unknown_keys
from cluster.packing import BUILD_APP, BUILD_EXPERT, BUILD_SIMULATED
from deployments.config import REQUEST_TIMEOUT_S, AppArgs
from deployments.engine_settings import EXPERT_DEPLOYMENT, ExpertArgs, ExpertConfig
from deployments.simulated.args import SimulatedArgs

MODELS: dict[str, type[BaseModel]] = {
    BUILD_APP: AppArgs,
    BUILD_EXPERT: ExpertArgs,
    BUILD_SIMULATED: SimulatedArgs,
}
"""Model of the `args` of each `import_path` of ours."""
BUILDER_OPTIONS = frozenset(
    {
        "ray_actor_options",
        "placement_group_bundles",
        "placement_group_strategy",
        "placement_group_bundle_label_selector",
        "max_replicas_per_node",
    }
)
"""Options that the builders derive from `args`; the same option in `deployments[]` would replace theirs."""
REPLACES_ARGS = (
    "would silently replace what the builder derives from args (pool, num_cpus, num_gpus, engine): remove it"
)


def check_application(app: Mapping[str, Any], where: str, *, longest_s: float = 0) -> Iterator[Finding]:
    """Find the errors of one application; that of another project is only a warning.

    Args:
        app: the application.
        where: its name, for the keys of the findings.
        longest_s: how long a response may take.
    """
    yield from unknown_keys(app, "application", where)
    path = app.get("import_path", "")
    if path not in MODELS:
        yield Finding(
            "warning", f"{where}.import_path", f"{path!r} is not part of TO-Router and is not checked"
        )
        return
    yield from model_errors(MODELS[path], app.get("args") or {}, f"{where}.args")
    is_expert = path in {BUILD_EXPERT, BUILD_SIMULATED}
    if is_expert and app.get("route_prefix", "/") is not None:
        yield Finding(
            "error", f"{where}.route_prefix", "must be null: clients reach an expert through the ingress only"
        )
    yield from _deployments(app.get("deployments") or [], where, is_expert=is_expert)
    yield from _graces(app, where, longest_s)
    if path == BUILD_EXPERT:
        for deployment in app.get("deployments") or []:
            config = deployment.get("user_config") or {}
            if deployment.get("name") == EXPERT_DEPLOYMENT:
                yield from model_errors(ExpertConfig, config, f"{where}.{EXPERT_DEPLOYMENT}.user_config")
        yield from check_expert(app.get("args") or {}, where)


def _deployments(deployments: list[Mapping[str, Any]], where: str, *, is_expert: bool) -> Iterator[Finding]:
    known = {EXPERT_DEPLOYMENT} if is_expert else {"Ingress", "Router"}
    for index, deployment in enumerate(deployments):
        key = f"{where}.deployments[{deployment.get('name', index)}]"
        yield from unknown_keys(deployment, "deployment", key)
        if deployment.get("name") not in known:
            yield Finding(
                "error", f"{key}.name", f"no such deployment here; expected {', '.join(sorted(known))}"
            )
        yield from _options(deployment, key, is_expert=is_expert)
        yield from _elasticity(deployment, key, is_expert=is_expert)
    for name in sorted(known - {deployment.get("name") for deployment in deployments}):
        level: Literal["error", "warning"] = "error" if name == "Ingress" else "warning"
        yield Finding(
            level, f"{where}.deployments", f"{name} is missing: Serve's defaults (5 requests at once) apply"
        )


def _graces(app: Mapping[str, Any], where: str, longest_s: float) -> Iterator[Finding]:
    """Find the replicas that would be ended in the middle of a response that may still run."""
    for deployment in app.get("deployments") or []:
        default = longest_s if deployment.get("name") == "Ingress" else REQUEST_TIMEOUT_S
        grace = deployment.get("graceful_shutdown_timeout_s", default)
        is_number = isinstance(grace, int | float) and not isinstance(grace, bool)
        if deployment.get("name") != "Router" and is_number and grace < longest_s:
            message = (
                f"{grace:g} s is below request_timeout_s {longest_s:g}: a replica that stops cuts the "
                "responses that take longer"
            )
            key = f"{where}.deployments[{deployment.get('name')}].graceful_shutdown_timeout_s"
            yield Finding("warning", key, message)


def _options(deployment: Mapping[str, Any], key: str, *, is_expert: bool) -> Iterator[Finding]:
    if "max_ongoing_requests" not in deployment:
        message = "is missing: with Serve's default of 5, requests queue before they reach our admission"
        yield Finding("warning" if is_expert else "error", f"{key}.max_ongoing_requests", message)
    yield from wrong_numbers(deployment, DEPLOYMENT, key)
    if is_expert and "num_replicas" in deployment:
        yield Finding(
            "error", f"{key}.num_replicas", "is silently overridden on an expert: use autoscaling_config"
        )
    replaced = "would silently replace the engine's environment: use args.environment and args.pool"
    if not is_expert:
        part = str(deployment.get("name")).lower()
        replaced = f"would silently replace pool and processors: use args.{part}.pool and num_cpus"
    for name in sorted(BUILDER_OPTIONS & deployment.keys()):
        yield Finding("error", f"{key}.{name}", replaced if name == "ray_actor_options" else REPLACES_ARGS)


def _elasticity(deployment: Mapping[str, Any], key: str, *, is_expert: bool) -> Iterator[Finding]:
    autoscaling = deployment.get("autoscaling_config")
    if autoscaling is None:
        return
    yield from unknown_keys(autoscaling, "autoscaling", f"{key}.autoscaling_config")
    yield from wrong_numbers(autoscaling, AUTOSCALING, f"{key}.autoscaling_config")
    if "num_replicas" in deployment:
        yield Finding("error", f"{key}.num_replicas", "conflicts with autoscaling_config: give one of them")
    low, high = autoscaling.get("min_replicas", 1), autoscaling.get("max_replicas", 1)
    if isinstance(low, int) and isinstance(high, int) and low > high:
        yield Finding(
            "error", f"{key}.autoscaling_config", f"min_replicas {low} is above max_replicas {high}"
        )
    if is_expert and "target_ongoing_requests" not in autoscaling:
        message = "is missing: the default of LLM serving never scales"
        yield Finding("error", f"{key}.autoscaling_config.target_ongoing_requests", message)
