"""Say what is wrong with a serve_config.yaml before a deploy, in plain words.

Reads the file and what it names; starts nothing. Ray itself would drop an unknown key in silence, or
wait for ever for a node that does not exist. With `cluster` or `kuberay` it is held against nodes too.
"""

import argparse
import json
import os
import sys
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ValidationError

from cluster.check.expert import check_expert
from cluster.check.finding import Finding
from cluster.check.known_keys import serve_keys
from cluster.check.manifest import check_manifest
from cluster.check.nodes import DASHBOARD, check_fit, cluster_nodes
from cluster.packing import BUILD_APP, BUILD_EXPERT, BUILD_SIMULATED, demands
from deployments.config import (
    EXPERT_DEPLOYMENT,
    AppArgs,
    ExpertArgs,
    IngressConfig,
    RouterConfig,
    explain,
    resolve,
)
from deployments.simulated.args import SimulatedArgs
from router.errors import RouterError

OF_THE_BUILDER = frozenset(
    {
        "ray_actor_options",
        "placement_group_bundles",
        "placement_group_strategy",
        "placement_group_bundle_label_selector",
        "max_replicas_per_node",
    }
)
"""Options that the builders make from `args`; one that stands in `deployments[]` replaces theirs."""
REPLACES_ARGS = (
    "would replace in silence what the builder makes of args (pool, num_cpus, num_gpus, engine): take it out"
)


def check_file(
    file: Path, *, cluster: str | None = None, kuberay: Path | None = None, policy: bool = True
) -> list[Finding]:
    """Everything that can be said of a configuration; errors first.

    Args:
        file: the configuration.
        cluster: address of a running cluster's dashboard, to hold pools against its nodes.
        kuberay: a file with a RayService, to hold pools against its worker groups.
        policy: false where the policy's folder is not on this machine, only where the router will run.

    Raises:
        ClusterUnreachable, ManifestUnreadable: there is nothing to hold it against.
    """
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        return [Finding("error", str(file), f"cannot be read: {error.strerror}")]
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        return [Finding("error", str(file), f"is not YAML: {' '.join(str(error).split())}")]
    if not isinstance(data, dict):
        return [Finding("error", str(file), f"must hold an object, found {type(data).__name__}")]
    found = list(_check(data, policy=policy))
    if (cluster or kuberay) and not any(finding.is_error for finding in found):
        wanted = demands(data)
        if cluster:
            found += check_fit(wanted, cluster_nodes(cluster), where=cluster, more_may_join=True)
        if kuberay:
            found += check_manifest(data, wanted, kuberay)
    return sorted(found, key=lambda finding: finding.level)


def _check(data: Mapping[str, Any], *, policy: bool) -> Iterator[Finding]:
    yield from _unknown(data, "deploy", "")
    http = data.get("http_options") or {}
    yield from _unknown(http, "http", "http_options")
    if "host" not in http:
        yield Finding(
            "warning", "http_options.host", "is left out: the fast transport then binds every interface"
        )
    applications = data.get("applications")
    if not isinstance(applications, list) or not all(isinstance(app, dict) for app in applications):
        yield Finding("error", "applications", "must be a list of applications")
        return
    yield from _unique(applications)
    for index, app in enumerate(applications):
        yield from _application(app, f"applications[{index}]" if "name" not in app else f"{app['name']}")
    yield from _together(applications, policy=policy)


def _application(app: Mapping[str, Any], where: str) -> Iterator[Finding]:
    yield from _unknown(app, "application", where)
    models: dict[str, type[BaseModel]] = {
        BUILD_APP: AppArgs,
        BUILD_EXPERT: ExpertArgs,
        BUILD_SIMULATED: SimulatedArgs,
    }
    built = models.get(app.get("import_path", ""))
    if built is not None:
        yield from _validated(built, app.get("args") or {}, f"{where}.args")
    else:
        yield Finding(
            "warning", f"{where}.import_path", f"{app.get('import_path')!r} is not ours and is not checked"
        )
        return
    is_expert = app.get("import_path") in {BUILD_EXPERT, BUILD_SIMULATED}
    known = {EXPERT_DEPLOYMENT} if is_expert else {"Ingress", "Router"}
    if is_expert and app.get("route_prefix", "/") is not None:
        yield Finding(
            "error", f"{where}.route_prefix", "must be null: an expert is reached through the ingress only"
        )
    deployments = app.get("deployments") or []
    for index, deployment in enumerate(deployments):
        key = f"{where}.deployments[{deployment.get('name', index)}]"
        yield from _unknown(deployment, "deployment", key)
        if deployment.get("name") not in known:
            yield Finding(
                "error", f"{key}.name", f"no such deployment here; expected {', '.join(sorted(known))}"
            )
        yield from _elasticity(deployment, key, is_expert=is_expert)
    if missing := sorted(known - {deployment.get("name") for deployment in deployments}):
        for name in missing:
            level: Literal["error", "warning"] = "error" if name == "Ingress" else "warning"
            yield Finding(
                level,
                f"{where}.deployments",
                f"{name} is left out: Serve's defaults (5 requests at once) hold",
            )
    if built is ExpertArgs:
        yield from check_expert(app.get("args") or {}, where)


def _elasticity(deployment: Mapping[str, Any], key: str, *, is_expert: bool) -> Iterator[Finding]:
    autoscaling = deployment.get("autoscaling_config")
    if "max_ongoing_requests" not in deployment:
        told = "is left out: Serve's default of 5 would queue requests before our admission sees them"
        yield Finding("error" if not is_expert else "warning", f"{key}.max_ongoing_requests", told)
    if is_expert and "num_replicas" in deployment:
        yield Finding(
            "error", f"{key}.num_replicas", "is overruled in silence on an expert: use autoscaling_config"
        )
    told = "would replace the engine's environment in silence: use args.environment and args.pool"
    if not is_expert:
        part = str(deployment.get("name")).lower()
        told = f"would replace pool and processors in silence: use args.{part}.pool and num_cpus"
    for name in sorted(OF_THE_BUILDER & deployment.keys()):
        yield Finding("error", f"{key}.{name}", told if name == "ray_actor_options" else REPLACES_ARGS)
    if autoscaling is None:
        return
    if not isinstance(autoscaling, dict):
        yield Finding("error", f"{key}.autoscaling_config", f"must be an object, found {autoscaling!r}")
        return
    yield from _unknown(autoscaling, "autoscaling", f"{key}.autoscaling_config")
    if "num_replicas" in deployment:
        yield Finding("error", f"{key}.num_replicas", "stands beside autoscaling_config: give one of them")
    low, high = autoscaling.get("min_replicas", 1), autoscaling.get("max_replicas", 1)
    if isinstance(low, int) and isinstance(high, int) and low > high:
        yield Finding(
            "error", f"{key}.autoscaling_config", f"min_replicas {low} is above max_replicas {high}"
        )
    if is_expert and "target_ongoing_requests" not in autoscaling:
        told = "is left out: LLM serving's own default never scales"
        yield Finding("error", f"{key}.autoscaling_config.target_ongoing_requests", told)


def _together(applications: Any, *, policy: bool) -> Iterator[Finding]:
    """What one part says of another."""
    door = next((app for app in applications if app.get("import_path") == BUILD_APP), None)
    if door is None:
        yield Finding("error", "applications", f"none is built by {BUILD_APP}: there is no ingress")
        return
    configs = {d.get("name"): d.get("user_config") for d in door.get("deployments") or []}
    where = str(door.get("name"))
    ingress = yield from _config(IngressConfig, configs.get("Ingress"), f"{where}.Ingress.user_config")
    router = yield from _config(RouterConfig, configs.get("Router"), f"{where}.Router.user_config")
    if ingress is not None:
        yield from _experts(ingress, applications, f"{where}.Ingress.user_config.experts")
    if router is not None and policy:
        yield from _policy(router, ingress, f"{where}.Router.user_config")


def _experts(config: Any, applications: list[dict[str, Any]], key: str) -> Iterator[Finding]:
    apps = {app.get("name"): app for app in applications}
    experts = {n: a for n, a in apps.items() if a.get("import_path") in {BUILD_EXPERT, BUILD_SIMULATED}}
    wanted = {target.app: name for name, target in config.experts.items() if target.app is not None}
    for app, name in wanted.items():
        if app not in apps:
            yield Finding(
                "error", f"{key}.{name}.app", f"there is no application {app!r}: add it, or drop the expert"
            )
        elif (called := (apps[app].get("args") or {}).get("name", name)) != name:
            told = f"{app!r} serves itself as {called!r}: the two names must be equal"
            yield Finding("error", f"{key}.{name}", told)
    for app in experts.keys() - wanted.keys():
        yield Finding(
            "warning", str(app), f"is an application without an expert: add it under {key}, or remove it"
        )
    for name, target in config.experts.items():
        if target.key_env and target.key_env not in os.environ:
            yield Finding(
                "warning", f"{key}.{name}.key_env", f"{target.key_env} is not set in this environment"
            )


def _policy(config: Any, ingress: Any, key: str) -> Iterator[Finding]:
    from router.policy import Policy

    folder = resolve(config.policy)
    try:
        policy = Policy.load(folder)
    except RouterError as error:
        yield Finding("error", f"{key}.policy", f"{config.policy!r} cannot be served: {error}")
        return
    if strangers := sorted(set(config.prices) - set(policy.pool.names)):
        yield Finding(
            "error", f"{key}.prices.{strangers[0]}", f"policy {policy.policy_id} does not score this expert"
        )
    if ingress is None:
        return
    if missing := sorted(set(ingress.experts) - set(policy.pool.names)):
        told = f"policy {policy.policy_id} does not cover the experts {', '.join(missing)}: retrain it"
        yield Finding("error", f"{key}.policy", told)
    unpriced = [e.name for e in policy.pool if e.price is None and e.name not in config.prices]
    if unpriced and len(unpriced) < len(policy.pool):
        yield Finding(
            "warning", f"{key}.prices", f"{', '.join(unpriced)} has no price and counts as the dearest"
        )


def _unique(applications: list[dict[str, Any]]) -> Iterator[Finding]:
    for key in ("name", "route_prefix"):
        values = [app.get(key) for app in applications if app.get(key) is not None]
        for value in sorted({str(v) for v in values if values.count(v) > 1}):
            yield Finding("error", f"applications[].{key}", f"{value!r} stands twice")


def _unknown(data: Any, schema: str, where: str) -> Iterator[Finding]:
    if not isinstance(data, Mapping):
        yield Finding("error", where, f"must be an object, found {data!r:.60}")
        return
    known = serve_keys(schema)
    for name in sorted(str(key) for key in data if known and key not in known):
        yield Finding(
            "error", f"{where}.{name}".lstrip("."), "unknown key, which Serve would drop in silence"
        )


def _validated(model: type[BaseModel], data: Any, where: str) -> Iterator[Finding]:
    try:
        model.model_validate(data)
    except ValidationError as error:
        for line in explain(error, where).split("; "):
            key, _, told = line.partition(": ")
            yield Finding("error", key, told)


def _config(model: type[BaseModel], data: Any, where: str) -> Generator[Finding, None, Any]:
    """Findings of a user_config; the generator returns the parsed value, or `None`."""
    if data is None:
        yield Finding("error", where, "is missing")
        return None
    found = list(_validated(model, data, where))
    yield from found
    return None if found else model.model_validate(data)


def add_command(commands: Any) -> None:
    """Register `to-router check`."""
    command = commands.add_parser("check", help="say what is wrong with a serve_config.yaml before a deploy")
    command.add_argument("config", type=Path)
    command.add_argument(
        "--cluster",
        nargs="?",
        const=DASHBOARD,
        metavar="ADDRESS",
        help="hold it against a running cluster's nodes",
    )
    command.add_argument("--kuberay", type=Path, metavar="FILE", help="hold it against a RayService's groups")
    command.add_argument(
        "--no-policy", action="store_true", help="the policy's folder is not here: leave it unchecked"
    )
    command.add_argument("--json", action="store_true")
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    findings = check_file(
        options.config, cluster=options.cluster, kuberay=options.kuberay, policy=not options.no_policy
    )
    if options.json:
        told = [{"level": f.level, "key": f.key, "message": f.message} for f in findings]
        print(json.dumps({"ok": not any(f.is_error for f in findings), "findings": told}, indent=2))
    else:
        for finding in findings:
            print(finding, file=sys.stderr)
        if not findings:
            print(f"{options.config}: no fault found")
    return 2 if any(finding.is_error for finding in findings) else 0
